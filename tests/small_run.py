"""A run small enough to be done again and again: its spec, what to compare, what to count."""

import json

from robustloss.runs.executors import choose, splitting
from robustloss.storage import read_json

SPEC = {
    "name": "small",
    "seeds": [0, 1],
    "data": {"name": "digits", "train_size": 200, "validation_size": 60, "test_size": 80},
    "model": {"backbone": "digits_cnn", "feature_dim": 4},
    "train": {
        "epochs": 3,
        "batch_size": 40,
        "precision": "float32",
        "lr": 0.02,
        "max_grad_norm": False,  # a high rate diverges, as some tests want it
    },
    "detection": {"fit_size": 100},
    "checks": {"images": 10},  # each is tried in some twenty ways, most of the time of a run
    "losses": [{"name": "softmax", "label": "softmax"}, {"name": "lgm", "label": "L-GM"}],
    "attacks": [{"name": "fgsm", "label": "fgsm", "eps": [0, "1/10", 0.2]}],
}


def changed(**keys):
    return {**json.loads(json.dumps(SPEC)), **keys}


def numbers(folder):
    """results.json without what may differ between two equal runs: times and the command."""
    results = read_json(folder / "results.json")
    del results["digest"]  # it covers the times too
    for key in ("started", "finished", "seconds", "command", "attack_cost"):
        del results["provenance"][key]
    for training in results["training"]:
        del training["seconds"]
        for line in training["curve"]:
            del line["seconds"]
    return results


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("cells/**/*.npz")}


class Counted:
    """Counts trainings and attacks while a test runs."""

    def __init__(self, monkeypatch):
        from robustloss.evaluation import attacked
        from robustloss.training import train as training

        self.trained, self.attacked = 0, []
        train, attack = training.train, attacked.attacked_records

        def counted_train(*args, **kwargs):
            self.trained += 1
            return train(*args, **kwargs)

        def counted_attack(model, attack_pass, **kwargs):
            self.attacked.append(tuple(attack_pass.eps))
            return attack(model, attack_pass, **kwargs)

        monkeypatch.setattr(training, "train", counted_train)
        monkeypatch.setattr(attacked, "attacked_records", counted_attack)


class Told:
    """Keeps the events of a run."""

    def __init__(self):
        self.events = []

    def start(self, cells):
        self.cells = cells

    def __call__(self, event):
        self.events.append(event)

    def stop(self):
        pass

    @property
    def ends(self):
        return [(e.cell, e.stage) for e in self.events if e.stage in ("done", "cached", "failed")]

    def in_parts(self):
        """Whether parts were attacked, and no cell attacked anything by itself."""
        texts = [event.text for event in self.events if event.stage == "attack"]
        return bool(texts) and all(" parts" in text for text in texts)


def compute_jobs_here(monkeypatch):
    """Returns a list that takes the jobs of each wave, which this process then computes in turn."""
    given = []

    def run_jobs(jobs, dataset, executor, report):
        given.append([job.task for job in jobs])
        return real(jobs, dataset, "serial", report)

    real = choose.run_jobs
    monkeypatch.setattr(splitting, "run_jobs", run_jobs)
    return given
