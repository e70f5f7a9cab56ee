"""Which epoch's weights are kept: errors on attacked validation images, epoch by epoch.

Robust errors may rise again while a training goes on, long before clean ones do (Rice et al.,
"Overfitting in adversarially robust deep learning", ICML 2020). Under training with a one-step
attack they may jump to 100 % within an epoch, which the errors under that same attack do not show
(Wong et al., "Fast is better than free", ICLR 2020). Neither shows in the clean error.
"""

import torch
from torch import Tensor, nn

from robustloss.attacks import Attack, build_attack, iter_perturb
from robustloss.data.images import ImageSet, fit_subset
from robustloss.models.classifier import Classifier
from robustloss.spec.training import AdversarialSpec
from robustloss.training.log import TrainingLog

BATCH = 500  # images attacked at once; decides no result


class Selection:
    """Measures the attacked validation error and holds the weights that had the lowest.

    Args:
        spec: Table train.adversarial.
        validation: On the device; a fixed part of it with equal class shares is attacked.
        seed: Of the cell; decides the attack's random starts, the same in every epoch.
    """

    def __init__(self, spec: AdversarialSpec, validation: ImageSet, seed: int) -> None:
        self.spec, self.seed = spec, seed
        self.images = fit_subset(validation, spec.select_images)
        self.best: dict[str, Tensor] = {}  # the state of the model with the fewest errors so far
        # The margin, because cross-entropy of large logits has no gradient left to follow. Errors
        # are all that is asked, and "first" finds them with fewer passes. On a GPU batches that
        # shrink could not replay recorded gradients.
        keep = "first" if validation.labels.device.type == "cpu" else "best"
        self._strong = build_attack(
            "pgd", objective="margin", norm=spec.norm, steps=spec.select_steps, keep=keep
        )
        objective = "margin" if spec.objective == "margin" else "ce"
        self._one_step = build_attack(
            "pgd", objective=objective, norm=spec.norm, steps=1, step_size=spec.step_size,
            keep="last",
        )  # fmt: skip

    def measure(self, model: Classifier, epoch: int, epochs: int, log: TrainingLog) -> dict:
        """Attack the images after an epoch, and keep the weights if they have the fewest errors.

        Args:
            model: As it stands after the epoch.
            epoch: Its number, 1 to epochs.
            epochs: Of the whole training.
            log: Has the errors of the epochs before; takes the number of the chosen epoch.

        Returns:
            For the learning curve: "validation_robust_error", None in an epoch that is left out
            and for a pair loss; under fgsm "validation_one_step_error" too, fractions.
        """
        attacks = {"validation_robust_error": self._strong}
        if self.spec.attack == "fgsm":
            attacks["validation_one_step_error"] = self._one_step
        left_out = epoch % self.spec.select_every and epoch < epochs
        if left_out or not model.head.logits_while_training:
            return dict.fromkeys(attacks)
        errors = {name: self._error(model, attack) for name, attack in attacks.items()}
        error = errors["validation_robust_error"]
        before = [line.get("validation_robust_error") for line in log.curve]
        lowest = min((e for e in before if e is not None), default=float("inf"))
        if self.spec.select == "robust" and error < lowest:
            log.chosen_epoch = epoch
            self.best = {name: value.clone() for name, value in model.state_dict().items()}
        return errors

    def restore(self, model: nn.Module) -> None:
        """Give the model the weights of the chosen epoch, if one was to be chosen."""
        if self.best:
            model.load_state_dict(self.best)

    def _error(self, model: Classifier, attack: Attack) -> float:
        """Return the error fraction under an attack at the full eps."""
        model.eval()
        inputs = self.images.batch(slice(None)).contiguous(memory_format=torch.channels_last)
        wrong, start = 0, 0
        for part in iter_perturb(
            attack, model, inputs, self.images.labels, eps=[self.spec.eps], seed=self.seed,
            batch_size=BATCH, index=self.images.index,
        ):  # fmt: skip
            labels = self.images.labels[start : start + BATCH]
            with torch.no_grad():
                wrong += int((model(part.adv_inputs[0]).argmax(1) != labels).sum())
            start += BATCH
        return wrong / self.images.n
