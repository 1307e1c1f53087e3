"""What a host's GPUs are read as: from `nvidia-smi -q`, from NVML, and where there is neither."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rig.nvml import StandInNvml

from sotad.hosts import gpus, gpus_nvml
from sotad.hosts.gpus import Gpu, Process, Reading, looking
from sotad.hosts.gpus_smi import SmiError, parse

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SOTAD_DATA") or ROOT.parent / "shared" / "data")
REAL = DATA / "h200" / "meta" / "nvidia-smi-q.txt"

TWO = """
==============NVSMI LOG==============

Timestamp                                 : Mon Jan  5 10:00:00 2026
Driver Version                            : 525.60.13
CUDA Version                              : 12.0

Attached GPUs                             : 2
GPU 00000000:3B:00.0
    Product Name                          : Test Card
    MIG Mode
        Current                           : Enabled
        Pending                           : Enabled
    GPU UUID                              : GPU-a
    Clocks Throttle Reasons
        Idle                              : Active
        SW Power Cap                      : Active
        HW Slowdown                       : Not Active
            HW Thermal Slowdown           : Active
    FB Memory Usage
        Total                             : 81920 MiB
        Used                              : 1024 MiB
    BAR1 Memory Usage
        Used                              : 7 MiB
    Utilization
        Gpu                               : N/A
    ECC Errors
        Volatile
            SRAM Correctable              : 1
            SRAM Uncorrectable            : 0
            DRAM Correctable              : 2
            DRAM Uncorrectable            : 3
        Aggregate
            DRAM Uncorrectable            : 40
    Temperature
        GPU Current Temp                  : 61 C
    Power Readings
        Power Draw                        : 70.50 W
        Power Limit                       : 300.00 W
    Processes
        GPU instance ID                   : 1
        Compute instance ID               : 0
        Process ID                        : 7
            Type                          : C
            Name                          : python -c import a : b
            Used GPU Memory               : 512 MiB
        GPU instance ID                   : 2
        Compute instance ID               : 0
        Process ID                        : 8
            Type                          : C
            Name                          : other
            Used GPU Memory               : N/A
GPU 00000000:5E:00.0
    Product Name                          : Test Card
    GPU UUID                              : GPU-b
    Processes                             : None
"""


def test_a_real_reading_of_an_h200() -> None:
    """Every figure of a real card is read as it stands there."""
    if not REAL.exists():
        pytest.skip(f"no {REAL}")
    driver, (gpu,) = parse(REAL.read_text())
    assert driver == "580.159.04"
    assert (gpu.index, gpu.name, gpu.uuid) == (0, "NVIDIA H200", "GPU-ec8a8d57-cb64-e304-864a-f80048b8192a")
    assert (gpu.memory_total_mib, gpu.memory_used_mib, gpu.utilization_pct, gpu.temperature_c) == (143771, 692, 0, 40)
    assert (gpu.power_w, gpu.power_limit_w) == (119.29, 700.0)
    assert (gpu.sm_clock_mhz, gpu.memory_clock_mhz, gpu.application_sm_clock_mhz) == (1980, 3201, 1980)
    assert (gpu.throttles, gpu.throttled_us["sw_power_cap"], gpu.throttled_us["hw_thermal_slowdown"]) == (
        (),
        8252617,
        0,
    )
    assert (gpu.ecc_corrected, gpu.ecc_uncorrected, gpu.mig) == (0, 0, False)
    assert gpu.processes == (Process(4137, "sglang::scheduler", 682),)


def test_an_older_driver_with_two_cards() -> None:
    """Sections named as before driver 535, sums of errors, processes of MIG instances, and what is not reported."""
    driver, (first, second) = parse(TWO)
    assert driver == "525.60.13"
    assert (first.memory_used_mib, first.utilization_pct, first.power_w, first.power_limit_w) == (1024, None, 70.5, 300)
    assert first.throttles == ("sw_power_cap", "hw_thermal_slowdown")
    assert (first.ecc_corrected, first.ecc_uncorrected, first.mig) == (3, 3, True)
    assert first.processes == (Process(7, "python -c import a : b", 512), Process(8, "other", None))
    assert second == Gpu(index=1, uuid="GPU-b", name="Test Card")


@pytest.mark.parametrize("text", ["", "No devices were found\n", "+-----+\n| NVIDIA-SMI 580 |\n"])
def test_other_texts_are_refused(text: str) -> None:
    """What is not the text of `nvidia-smi -q` is never read as a host without GPUs."""
    with pytest.raises(SmiError, match="not the text"):
        parse(text)


def test_nvml_is_read_and_closed() -> None:
    """What a card does not support is null, not zero; every call's units are converted; NVML is let go of."""
    fake = StandInNvml()
    with looking("nvml", fake) as now:
        found = now([0, 3])
        assert fake.open == 1
    assert (fake.open, found.source, found.driver, found.missing, found.problem) == (0, "nvml", "570.1", (3,), "")
    expected = Gpu(
        index=0,
        uuid="GPU-handle-0",
        name="Fake Card",
        memory_total_mib=81920,
        memory_used_mib=3072,
        utilization_pct=0,
        temperature_c=33,
        power_w=70.5,
        power_limit_w=300.0,
        sm_clock_mhz=1410,
        memory_clock_mhz=2619,
        throttles=("sw_power_cap", "hw_thermal_slowdown"),
        throttled_us={"sw_power_cap": 5000, "sw_thermal_slowdown": 0},
        mig=True,
        processes=(Process(5, "", None), Process(9, "server", 2048)),
    )
    assert found.gpus == (expected,)


def test_names_and_numbers_are_those_of_the_real_module() -> None:
    """Each name that the fake has exists in nvidia-ml-py, and the numbers that we write down are its own."""
    real = pytest.importorskip("pynvml")
    used = [name for name in vars(StandInNvml) if name.startswith(("nvml", "NVML"))]
    assert [name for name in used if not hasattr(real, name)] == []
    reasons = {name.lower(): bit for name, bit in vars(real).items() if name.startswith("nvmlClocksThrottleReason")}
    for name, bit in gpus_nvml._REASONS.items():
        assert reasons["nvmlclocksthrottlereason" + name.replace("_", "")] == bit
    for name, field in gpus_nvml._COUNTERS.items():
        constant = name.upper().replace("THERMAL", "THERM")
        assert getattr(real, f"NVML_FI_DEV_CLOCKS_EVENT_REASON_{constant}") == field


def test_the_hosts_cpu_is_read_beside() -> None:
    """What this process works between two looks is among the seconds that the host was busy."""
    with looking("nvml", StandInNvml()) as now:
        before, began = now(), time.process_time()
        while time.process_time() < began + 0.3:
            pass
        after = now()
    assert after.cpu["busy_s"] - before.cpu["busy_s"] > 0.2
    assert Reading.from_json(json.loads(json.dumps(after.to_json()))) == after


def test_without_a_driver_smi_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML does not start: the reading is nvidia-smi's, and says why."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f'#!/bin/sh\n[ "$1" = -q ] && cat <<END\n{TWO}\nEND\n')
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with looking("auto", StandInNvml(starts=False)) as now:
        found = now([1])
    assert (found.source, [gpu.uuid for gpu in found.gpus], found.missing) == ("nvidia-smi", ["GPU-b"], ())
    assert "Driver Not Loaded" in found.problem


def test_with_neither_there_are_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reading is empty and names both causes; a GPU that was asked for is missing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with looking("auto", StandInNvml(starts=False)) as now:
        found = now([0])
    assert (found.source, found.gpus, found.missing) == ("none", (), (0,))
    assert "Driver Not Loaded" in found.problem and "no nvidia-smi" in found.problem


def test_an_smi_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nvidia-smi says when it fails is in the reading, and no GPU is."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho couldn\\'t communicate with the driver; exit 9\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with looking("nvidia-smi") as now:
        found = now()
    assert found.source == "none" and "exited with 9: couldn't communicate" in found.problem


def test_a_reading_survives_json() -> None:
    """What is written by one process is read as the same by another."""
    driver, cards = parse(TWO)
    reading = Reading(time_ns=1, source="nvidia-smi", driver=driver, gpus=cards, missing=(2,))
    assert Reading.from_json(json.loads(json.dumps(reading.to_json()))) == reading
    with pytest.raises(ValueError, match="not a GPU reading"):
        Reading.from_json({"gpus": [{"index": 0}]})


def test_the_command_prints_one_reading(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON on standard output; status 1 tells of a GPU that is not there."""
    monkeypatch.setenv("PATH", "")
    status = gpus.main(["--ids", "0,4095", "--source", "nvidia-smi"])
    assert (status, json.loads(capsys.readouterr().out)["missing"]) == (1, [0, 4095])


@pytest.mark.parametrize("argv", [["--ids", "0,x"], ["--ids", "-1"], ["--watch", "0"], ["--watch", "nan"]])
def test_bad_usage_is_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One line says what to give, with status 2."""
    with pytest.raises(SystemExit) as stopped:
        gpus.main(argv)
    assert stopped.value.code == 2 and "give" in capsys.readouterr().err


def test_watching_ends_when_it_is_told_to(tmp_path: Path) -> None:
    """A watcher appends whole lines until SIGTERM, and then exits with 0."""
    out = tmp_path / "gpus.jsonl"
    command = [sys.executable, "-m", "sotad.hosts.gpus", "--watch", "0.01", "--out", str(out), "--source", "nvidia-smi"]
    with subprocess.Popen(command, cwd=ROOT) as watcher:
        while watcher.poll() is None and (not out.exists() or out.read_text().count("\n") < 3):
            time.sleep(0.01)
        watcher.send_signal(signal.SIGTERM)
        assert watcher.wait(10) == 0
    readings = [Reading.from_json(json.loads(line)) for line in out.read_text().splitlines()]
    times = [reading.time_ns for reading in readings]
    assert len(times) >= 3 and times == sorted(times)


def test_an_nvidia_smi_that_is_stopped_with_its_watcher_is_asked_again(tmp_path: Path) -> None:
    """A run's stop reaches the whole process group: a look that it cut short is no card that went missing."""
    asked, out, smi = tmp_path / "asked", tmp_path / "gpus.jsonl", tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\necho >>{asked}\n[ $(wc -l <{asked}) != 2 ] || sleep 60\ncat <<END\n{TWO}\nEND\n")
    smi.chmod(0o755)
    command = [sys.executable, "-m", "sotad.hosts.gpus", "--watch", "0.01", "--out", str(out), "--source", "nvidia-smi"]
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen(command, cwd=ROOT, env=env, start_new_session=True) as watcher:
        while watcher.poll() is None and (not asked.exists() or asked.read_text().count("\n") < 2):
            time.sleep(0.01)
        os.killpg(watcher.pid, signal.SIGTERM)
        assert watcher.wait(20) == 0
    readings = [Reading.from_json(json.loads(line)) for line in out.read_text().splitlines()]
    assert len(readings) >= 3 and {reading.source for reading in readings} == {"nvidia-smi"}
