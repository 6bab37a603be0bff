"""Tables of samples as people have them: parquet, csv, tsv, txt, json and npz files."""
