"""Whole runs with a training in several processes: killed, stopped and run again, they end with the same number."""

import os
import signal
import time

import pytest
from group_run import ended, finish, members_of, number_of, start, state_of, wait_for

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("address", ["processes", "inline"])
def test_killed_members_and_killed_drivers_change_nothing(tmp_path, address):
    driver = start(tmp_path, address, 2, 150)
    wait_for(lambda: state_of(tmp_path)["step"] >= 20)
    os.kill(members_of(tmp_path)[1], signal.SIGKILL)
    wait_for(lambda: state_of(tmp_path)["step"] >= 60)
    members = members_of(tmp_path)
    driver.kill()
    driver.wait()
    wait_for(lambda: ended(*members), 15)
    assert state_of(tmp_path)["step"] < 150
    code, said = finish(start(tmp_path, address, 2, 150))
    assert code == 0, said
    assert number_of(tmp_path) == 150 * 3


@pytest.mark.parametrize(("address", "processes"), [("processes", 2), ("processes", 1), ("inline", 1)])
def test_a_stopped_run_has_saved_its_last_step(tmp_path, address, processes):
    driver = start(tmp_path, address, processes, 3000, 2000)
    wait_for(lambda: bool(list(tmp_path.glob("artifacts/fake-*/scratch/.stop/*.asks"))))
    time.sleep(0.5)
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
    driver = start(tmp_path, "processes", 1, 3000, 0)
    wait_for(lambda: bool(list(tmp_path.glob("artifacts/fake-*/scratch/.stop/*.asks"))))
    driver.send_signal(signal.SIGTERM)
    time.sleep(3)
    assert driver.poll() is None  # it has up to 20 s
    driver.send_signal(signal.SIGTERM)
    code, said = finish(driver, 10)
    assert code == 130, said
    wait_for(lambda: ended(*members_of(tmp_path)))


def test_a_member_that_gets_sigterm_saves_and_its_group_goes_on(tmp_path):
    driver = start(tmp_path, "processes", 2, 200, 1000)
    wait_for(lambda: bool(list(tmp_path.glob("artifacts/fake-*/scratch/.stop/*.asks"))))
    time.sleep(0.5)
    os.kill(members_of(tmp_path)[1], signal.SIGTERM)
    code, said = finish(driver)
    assert code == 0, said
    assert "a signal stopped it; it goes on elsewhere" in " ".join(said.split())
    assert number_of(tmp_path) == 200 * 3


@pytest.mark.timeout(600)  # Ray Train needs 20 to 40 s to start a group; this starts three
def test_a_group_on_ray_is_killed_stopped_and_resumed(tmp_path):
    driver = start(tmp_path, "local", 2, 900, 100)
    wait_for(lambda: state_of(tmp_path)["step"] >= 100, 200)
    os.kill(members_of(tmp_path)[1], signal.SIGKILL)
    killed_at = state_of(tmp_path)["step"]
    wait_for(lambda: state_of(tmp_path)["step"] > killed_at + 100, 200)
    driver.send_signal(signal.SIGTERM)
    code, said = finish(driver)
    assert code == 130, said
    saved = state_of(tmp_path)
    assert saved["number"] == 3 * saved["step"]
    assert f"stopped after {saved['step']:,} of 900 samples" in " ".join(said.split())
    code, said = finish(start(tmp_path, "local", 2, 900, 100))
    assert code == 0, said
    assert number_of(tmp_path) == 900 * 3
