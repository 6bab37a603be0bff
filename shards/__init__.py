"""What a file is: uids, tars, row tables, storage, fetching, images and sources. Knows no models and no Ray."""
