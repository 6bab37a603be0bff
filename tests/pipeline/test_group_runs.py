"""Whole runs with a training in several processes: killed, stopped and run again, they end with the same number."""

import os
import signal
import time
from pathlib import Path

import pytest
from group_run import ended, finish, hurry, members_of, number_of, start, state_of, wait_for

pytestmark = pytest.mark.slow
STEPS = 3000  # a minute, unless it is told to hurry


def wait_for_step(folder: Path, step: int, seconds: float = 100.0) -> None:
    wait_for(lambda: state_of(folder)["step"] >= step, seconds)


def wait_until_it_asks(folder: Path) -> None:
    wait_for(lambda: bool(list(folder.glob("artifacts/fake-*/scratch/.stop/*.asks"))))


def test_stopped_and_killed_members_and_killed_drivers_change_nothing(tmp_path):
    driver = start(tmp_path, "processes", 2, STEPS)
    wait_for_step(tmp_path, 20)
    os.kill(members_of(tmp_path)[1], signal.SIGTERM)
    wait_for_step(tmp_path, state_of(tmp_path)["step"] + 40)
    os.kill(members_of(tmp_path)[1], signal.SIGKILL)
    wait_for_step(tmp_path, state_of(tmp_path)["step"] + 40)
    members = members_of(tmp_path)
    driver.kill()
    _, said = finish(driver)
    assert "a signal stopped it; it goes on elsewhere" in " ".join(said.split())
    wait_for(lambda: ended(*members), 15)
    assert state_of(tmp_path)["step"] < STEPS
    hurry(tmp_path)
    code, said = finish(start(tmp_path, "processes", 2, STEPS))
    assert code == 0, said
    assert number_of(tmp_path) == STEPS * 3


@pytest.mark.parametrize(("address", "processes"), [("processes", 2), ("inline", 1)])
def test_a_stopped_run_has_saved_its_last_step(tmp_path, address, processes):
    driver = start(tmp_path, address, processes, STEPS, STEPS - 1)
    wait_until_it_asks(tmp_path)
    assert state_of(tmp_path)["step"] == 0  # far from the first periodic save
    members = members_of(tmp_path)
    driver.send_signal(signal.SIGTERM)
    code, said = finish(driver, 60)
    assert code == 130, said
    saved = state_of(tmp_path)
    assert saved["step"] > 0
    assert saved["number"] == saved["step"] * processes * (processes + 1) // 2
    assert f"fake model: stopped after {saved['step']:,} of 3,000 samples; run again to go on" in " ".join(said.split())
    assert not list(tmp_path.glob("artifacts/fake-*/scratch/.stop/*"))
    wait_for(lambda: ended(*members))


def test_a_second_signal_ends_what_does_not_stop(tmp_path):
    driver = start(tmp_path, "processes", 1, STEPS, 0)
    wait_until_it_asks(tmp_path)
    driver.send_signal(signal.SIGTERM)
    time.sleep(3)
    assert driver.poll() is None  # it has up to 20 s
    driver.send_signal(signal.SIGTERM)
    code, said = finish(driver, 60)
    assert code == 130, said
    wait_for(lambda: ended(*members_of(tmp_path)))
