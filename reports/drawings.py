"""Every figure of a report, in the order of the page."""

from collections.abc import Callable

from robustloss.reports.album import Album
from robustloss.reports.detected import Detected
from robustloss.reports.featured import featured
from robustloss.reports.gallery_adaptive import add_falls
from robustloss.reports.gallery_alpha import add_alpha
from robustloss.reports.gallery_boundary import add_boundaries
from robustloss.reports.gallery_centers import add_center_estimates
from robustloss.reports.gallery_confusion import add_confusions
from robustloss.reports.gallery_control import add_control
from robustloss.reports.gallery_coverage import add_coverage
from robustloss.reports.gallery_curves import add_detection_curves, add_error_curves
from robustloss.reports.gallery_detection import add_likelihoods, add_rocs
from robustloss.reports.gallery_embedding import add_embedding, add_untrained
from robustloss.reports.gallery_forest import add_forest
from robustloss.reports.gallery_images import add_images
from robustloss.reports.gallery_learning import add_learning_curves
from robustloss.reports.gallery_norms import add_norms
from robustloss.reports.gallery_outside import add_outside
from robustloss.reports.gallery_posterior import add_log_odds, add_posteriors
from robustloss.reports.gallery_radius import add_radius_curves
from robustloss.reports.gallery_reliability import add_calibration_curves, add_reliability
from robustloss.reports.gallery_scores import add_score_curves, add_score_heat
from robustloss.reports.gallery_space import add_likelihood_map
from robustloss.reports.gallery_transfer import add_transfers
from robustloss.reports.gallery_tuning import add_tuning
from robustloss.reports.numbers import AttackInfo, Numbers
from robustloss.reports.scene import Scenes
from robustloss.reports.style import looks
from robustloss.reports.views import Shown

Drawing = Callable[[Album], object]  # adds one figure or a few, or none where there is nothing


def drawings(numbers: Numbers, shown: Shown) -> list[Drawing]:
    """What draws the figures; each can be called by itself, neighbours read the same files.

    Args:
        numbers: Of the run.
        shown: The models whose single images are shown.
    """
    look, detected, scenes = looks(numbers.labels), Detected(numbers), Scenes(numbers, shown)
    return [
        lambda album: add_error_curves(album, numbers, look),
        lambda album: add_radius_curves(album, numbers, shown, look),
        lambda album: add_falls(album, numbers),
        lambda album: add_transfers(album, numbers),
        *(
            drawing
            for attack in featured(numbers)
            for drawing in _of_attack(numbers, scenes, detected, attack)
        ),
        lambda album: add_outside(album, numbers, shown),
        lambda album: add_embedding(album, numbers, shown),
        lambda album: add_untrained(album, numbers, shown),
        lambda album: add_boundaries(album, numbers, shown),
        lambda album: add_alpha(album, numbers, shown),
        lambda album: add_confusions(album, numbers, shown),
        lambda album: add_norms(album, numbers, shown),
        lambda album: add_center_estimates(album, numbers),
        lambda album: add_tuning(album, numbers),
        lambda album: add_learning_curves(album, numbers, look),
    ]


def _of_attack(
    numbers: Numbers, scenes: Scenes, detected: Detected, attack: AttackInfo
) -> list[Drawing]:
    look = looks(numbers.labels)
    return [
        lambda album: add_detection_curves(album, numbers, attack, look),
        lambda album: add_posteriors(album, scenes.of(attack)),
        lambda album: add_log_odds(album, scenes.of(attack)),
        lambda album: add_likelihoods(album, scenes.of(attack)),
        lambda album: add_rocs(album, scenes.of(attack), look),
        lambda album: add_coverage(album, scenes.of(attack), look),
        lambda album: add_reliability(album, numbers, attack),
        lambda album: add_calibration_curves(album, numbers, attack, look),
        lambda album: add_forest(album, numbers, attack),
        lambda album: add_control(album, numbers, detected, attack),
        lambda album: add_score_curves(album, numbers, detected, attack, look),
        lambda album: add_score_heat(album, numbers, detected, attack),
        lambda album: add_likelihood_map(album, scenes.of(attack)),
        lambda album: add_images(album, scenes.of(attack)),
    ]
