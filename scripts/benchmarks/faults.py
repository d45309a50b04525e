"""What a sweep comes through: killed with -9, preempted by a real Slurm, out of disk; compared with an undisturbed one.

    scripts/bench faults [--kills 30] [--preemptions 10] [--full-disks 2] [--epochs 2500] [--seed 0]

200 fits of the digits, in cohorts of 50. The same command is given again after each interruption, as a person would.
Afterwards every record must be there, with the same bytes of curves and losses as without any disturbance, and less
than 5 % of the epochs may have been computed twice. It needs root: a small tmpfs is mounted, and where Slurm is
installed, a private one is started (scripts/slurm/start); where it is not, preemptions are left out, and that is said.
"""

import functools
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from overfit_lab.claim import is_alive, owners
from overfit_lab.records import StudyFiles
from scripts.benchmarks.processes import OVERFIT_LAB, ROOT, OneLineParser, positive, tell

STUDY = "faults"
RUNS, FOLDS = 40, 5
MOST_REPEATED = 0.05
# Of what a run records, this says when and how it was made, and not what came out.
OF_THE_MAKING = ("seconds", "environment", "interruptions", "epochs_repeated", "digest", "config", "overrides")
PATIENCE = 300.0


@dataclass
class Faults:
    """What is done to a sweep, and what has been done.

    Args:
        folder: Where its study lies.
        words: The command.
        rng: Says when.
        environment: Of every process.
        done: How often what was done.
        commands: How often the command was given.
    """

    folder: Path
    words: list[str]
    rng: random.Random
    environment: dict[str, str]
    done: Counter[str] = field(default_factory=Counter)
    commands: int = 0

    @property
    def study(self) -> StudyFiles:
        """The study's files."""
        return StudyFiles(self.folder / STUDY)

    def start(self, *more: str) -> "subprocess.Popen[str]":
        """Give the command."""
        self.commands += 1
        command = [OVERFIT_LAB, *self.words, f"study.root={self.folder}", *more]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder.parent, env=self.environment, text=True, stdout=pipe, stderr=pipe
        )

    def is_done(self) -> bool:
        """Whether all records are there."""
        return len(list(self.study.runs.glob("*/run.json"))) == RUNS

    def training(self) -> list[int]:
        """The processes that train, as far as claims tell."""
        files = self.study.cohorts
        claims = [files.claim(path.stem) for path in files.directory.glob("*.json")]
        return [owners(claim)[-1].process for claim in claims if is_alive(claim) and owners(claim)[-1].horizon]

    def jobs(self) -> list[str]:
        """The batch jobs that train."""
        files = self.study.cohorts
        claims = [files.claim(path.stem) for path in sorted(files.directory.glob("*.json"))]
        found = [owners(claim)[-1] for claim in claims if is_alive(claim)]
        return [owner.job for owner in found if owner.job is not None and owner.horizon]

    def wait_for_training(self, process: "subprocess.Popen[str]") -> bool:
        """Wait until something trains, and then for a random while; False where the sweep has ended."""
        wait_for(lambda: process.poll() is not None or bool(self.training()), "training")
        time.sleep(self.rng.uniform(0.5, 6))
        return process.poll() is None


def kill(faults: Faults, count: int) -> None:
    """Kill tasks, the launcher or both, at random moments."""
    process = faults.start()
    while count:
        if not faults.wait_for_training(process):
            return
        victim = ("a task", "the launcher", "both")[count % 3]
        tasks, everyone = faults.training(), [process.pid, *(child.pid for child in children_of(process.pid))]
        if victim == "a task":
            if not tasks:
                continue
            kill_9(faults.rng.choice(tasks))
        else:
            for pid in everyone if victim == "both" else [process.pid]:
                kill_9(pid)
            process.communicate()
            process = faults.start()
        faults.done[f"killed with -9: {victim}"] += 1
        count -= 1
        tell(f"{sum(faults.done.values())}: {victim} killed, {progress(faults)}")
    stop(process)


def fill_the_disk(faults: Faults, count: int) -> None:
    """Let the command meet a full disk, make room again, and go on."""
    ballast = faults.folder / "ballast"
    for _ in range(count):
        process = faults.start()
        if not faults.wait_for_training(process):
            return
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"\0" * 4096):
                pass
        said, error = process.communicate(timeout=PATIENCE)
        ballast.unlink()
        if process.returncode != 2 or "No space left on device" not in error or len(error.splitlines()) != 1:
            raise SystemExit(f"on a full disk the command ended with {process.returncode} and said\n{said}{error}")
        faults.done["disk full (exit code 2, one line)"] += 1
        tell(f"{sum(faults.done.values())}: disk full, {progress(faults)}")


def preempt(faults: Faults, count: int) -> None:
    """Preempt tasks of a real Slurm."""
    process = faults.start(
        "hydra/launcher=cohort_slurm",
        *("hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2", "hydra.launcher.tasks=4"),
    )
    while process.poll() is None:
        # What was queued again would wait for two minutes.
        for job, state in queue(faults).items():
            if state == "PENDING":
                slurm(faults, "scontrol", "update", f"JobId={job}", "StartTime=now")
        if count and (jobs := faults.jobs()) and faults.wait_for_training(process):
            job = faults.rng.choice(jobs)
            if queue(faults).get(job) == "RUNNING" and job in faults.jobs():
                slurm(faults, "scancel", "--signal=USR2", job)
                wait_for(functools.partial(is_not_running, faults, job), f"job {job} to be queued again")
                # Started at once, it would get the blame for its first end.
                time.sleep(3)
                faults.done["preempted by Slurm (SIGUSR2, queued again)"] += 1
                count -= 1
                tell(f"{sum(faults.done.values())}: {job} preempted, {progress(faults)}")
        time.sleep(0.5)
    said, error = process.communicate()
    if process.returncode != 0 or not faults.is_done():
        raise SystemExit(f"by Slurm the command ended with {process.returncode} and said\n{said}{error}")


def slurm(faults: Faults, *words: str) -> None:
    """Give Slurm a command; what has ended meanwhile is no mistake."""
    subprocess.run(words, env=faults.environment, capture_output=True)


def is_not_running(faults: Faults, job: str) -> bool:
    """Whether a job waits, or has ended."""
    return queue(faults).get(job) != "RUNNING"


def queue(faults: Faults) -> dict[str, str]:
    """The jobs that Slurm has, and their states."""
    command = ["squeue", "--noheader", "--array", "--format=%i|%T"]
    answer = subprocess.run(command, env=faults.environment, capture_output=True, text=True, check=True)
    return dict(line.split("|") for line in answer.stdout.splitlines())


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited in vain for {what}")
        time.sleep(0.1)


def children_of(pid: int) -> list[psutil.Process]:
    """All descendants of a process."""
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def kill_9(pid: int) -> None:
    """Kill, as the system does it when memory runs out."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def stop(process: "subprocess.Popen[str]") -> None:
    """End the command in order, as somebody does who has to go."""
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)


def progress(faults: Faults) -> str:
    """How far the study is."""
    return f"{len(list(faults.study.runs.glob('*/run.json')))} of {RUNS} runs finished"


def compare(study: StudyFiles, undisturbed: StudyFiles) -> tuple[int, list[str]]:
    """Compare two studies.

    Returns:
        How many runs are the same to the last bit, and what is wrong with the others.
    """
    same, faults = 0, []
    for run in sorted(undisturbed.runs.iterdir()):
        ours, theirs = study.run(run.name), undisturbed.run(run.name)
        try:
            record = ours.verify()
        except Exception as error:
            faults.append(str(error))
            continue
        exclude = set(OF_THE_MAKING)
        if (
            ours.curves.read_bytes() == theirs.curves.read_bytes()
            and ours.val_losses.read_bytes() == theirs.val_losses.read_bytes()
            and record.model_dump(exclude=exclude) == theirs.load().model_dump(exclude=exclude)
        ):
            same += 1
        else:
            faults.append(f"run {run.name} differs")
    return same, faults


def repeated(study: StudyFiles) -> tuple[float, int]:
    """The share of epochs that were computed twice, and the number of interruptions, over all cohorts."""
    records = [study.run(run.name).load() for run in study.runs.iterdir()]
    epochs = sum(record.config["training"]["epochs"] for record in records)
    return sum(record.epochs_repeated for record in records) / epochs, max(record.interruptions for record in records)


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """Mount a small file system in memory."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
        try:
            yield Path(folder) / "studies"
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def private_slurm() -> Iterator[dict[str, str]]:
    """Start a Slurm of our own, and lend what makes its commands find it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        environment = {"SLURM_LAB": f"{folder}/lab"}
        subprocess.run([ROOT / "scripts/slurm/start"], env=os.environ | environment, check=True, capture_output=True)
        try:
            yield {"SLURM_CONF": f"{folder}/lab/slurm.conf"}
        finally:
            subprocess.run([ROOT / "scripts/slurm/stop"], env=os.environ | environment, check=True, capture_output=True)


def command(epochs: int) -> list[str]:
    """The sweep."""
    return [
        *("train", "-m", "data=digits", f"split.folds={FOLDS}", "model.width=8,16,24,32", "study.report=false"),
        "penalty.alpha=0,1e-5,3e-5,1e-4,3e-4,1e-3,3e-3,1e-2,3e-2,1e-1",
        *(f"training.epochs={epochs}", "training.checkpoint_seconds=0.5", f"study.name={STUDY}"),
        *("trainer.accelerator=cpu", "model.dropout=0.1"),
        *("hydra.launcher.max_fits=50",),
    ]


def main() -> None:
    """Run it, and print what became of the sweep."""
    parser = OneLineParser(prog="scripts/bench faults", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=positive, default=30)
    parser.add_argument("--preemptions", type=positive, default=10)
    parser.add_argument("--full-disks", type=positive, default=2)
    parser.add_argument("--epochs", type=positive, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with ExitStack() as stack:
        slurm = shutil.which("sbatch") is not None and os.geteuid() == 0
        if slurm:
            environment |= stack.enter_context(private_slurm())
        else:
            tell("Slurm is not installed, or this is not root: no preemptions")
        whole = stack.enter_context(tempfile.TemporaryDirectory())
        undisturbed = Faults(Path(whole) / "studies", command(arguments.epochs), random.Random(), environment)
        started = time.perf_counter()
        if undisturbed.start().wait() != 0 or not undisturbed.is_done():
            raise SystemExit("the undisturbed sweep failed")
        alone = time.perf_counter() - started
        tell(f"undisturbed: {alone:.0f} s")

        root = stack.enter_context(small_disk("1G"))
        root.mkdir()
        faults = Faults(root, command(arguments.epochs), random.Random(arguments.seed), environment)
        started = time.perf_counter()
        kill(faults, arguments.kills // 2)
        fill_the_disk(faults, arguments.full_disks)
        kill(faults, arguments.kills - arguments.kills // 2)
        if slurm:
            preempt(faults, arguments.preemptions)
        elif faults.start().wait() != 0:
            raise SystemExit("the last command failed")
        disturbed = time.perf_counter() - started
        same, wrong = compare(faults.study, undisturbed.study)
        share, interruptions = repeated(faults.study)
        left = [path.name for path in faults.study.directory.iterdir() if path.name == "cohorts"]

    table = Table(title=f"{RUNS * FOLDS} fits, {arguments.epochs} epochs", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    for what, count in faults.done.items():
        table.add_row(what, str(count))
    table.add_row("commands given", str(faults.commands))
    table.add_row("interruptions of the cohort that had most", str(interruptions))
    table.add_row("records that are there and the same to the last bit", f"{same} of {RUNS}")
    table.add_row(f"epochs computed twice (must be below {MOST_REPEATED:.0%})", f"{share:.2%}")
    table.add_row("seconds, disturbed / undisturbed", f"{disturbed:.0f} / {alone:.0f}")
    Console().print(table)
    for line in wrong + [f"{name} was left behind" for name in left]:
        print(line)
    if wrong or left or share >= MOST_REPEATED:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
