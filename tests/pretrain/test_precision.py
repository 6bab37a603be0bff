import pytest
import torch

from curate.errors import ConfigError
from curate.pretrain.encoders.load_encoder import load_encoder
from curate.pretrain.precision import inference, one_thread, pick_device, pick_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_auto_is_single_on_a_cpu_and_bfloat_on_a_gpu():
    assert pick_precision("auto", CPU) == "fp32"
    assert pick_precision("auto", GPU) == "bf16"
    assert [pick_precision(p, GPU) for p in ("fp32", "bf16", "fp16")] == ["fp32", "bf16", "fp16"]


def test_what_cannot_be_is_refused(trained, monkeypatch):
    for precision in ("bf16", "fp16"):
        with pytest.raises(ConfigError, match=f"'{precision}', but the model runs on the CPU.*eleven times slower"):
            load_encoder(trained[0], device="cpu", precision=precision)
    with pytest.raises(ConfigError, match="there is no precision 'fp8'"):
        pick_precision("fp8", CPU)
    with pytest.raises(ConfigError, match="there is no device 'abacus'"):
        pick_device("abacus")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == CPU
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        pick_device("cuda")


def test_settings_come_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
    tf32 = torch.backends.cudnn.allow_tf32
    with inference(GPU, "fp32"):
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.is_inference_mode_enabled()
    assert torch.backends.cudnn.allow_tf32 == tf32
