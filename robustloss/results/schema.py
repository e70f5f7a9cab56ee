"""What results.json holds, declared once: every table and every column.

What is written and in which order, what is refused when a file is read, and the JSON Schema that
`robustloss schema` prints all follow from `TABLES`. A new column is a line here and a value where
the rows of its table are made. A line reads NAME KIND Meaning. [marks], see `columns`.
"""

import math
from collections.abc import Mapping
from typing import Any

from robustloss.results.columns import Row, Table, parse_columns
from robustloss.results.provenance import Provenance

SCHEMA_VERSION = 1  # of cell.json and results.json; more tables and columns do not raise it
KEEPING_LABEL = ("confidence",)  # attacks that change only how sure the model is
WORST_CASE = {"attack": "worst_case", "attack_label": "worst case"}
# Image by image over attacks, where a score judges: those that know it, and every attack.
BEST_ADAPTIVE = {"attack": "best_of_adaptive", "attack_label": "best of adaptive"}
ANY_ATTACK = {"attack": "best_of_all", "attack_label": "any attack"}

_CELL = """
loss                         text      Name of the loss, built in or a plug-in.
label                        text      What tables call the loss.
seed                         integer   Training seed.
"""
_ATTACK = """
attack                       text      Name of the attack; "none" for the clean images.
attack_label                 text      What tables call the attack.
norm                         text?     Norm of the perturbation; null for the clean images.
"""
_EPS = """
eps                          number    Budget of the attack in its norm, with pixels in [0, 1].
"""
_N = """
n                            integer   Number of images.
"""
_ERROR = """
error                        number    Share of the images that are classified wrongly. [percent]
error_low                    number    Lower end of its 95 % Wilson interval over images. [percent]
error_high                   number    Upper end of its 95 % Wilson interval over images. [percent]
"""
_SCORE = """
score                        text      Name of the detection score.
"""
# How well a score separates clean images from others, attacked or of another distribution.
_SEPARATION = """
auroc                        number?   Area under the ROC curve, the clean against the others. \
                                       [fraction]
auroc_low                    number?   Lower end of its 95 % interval over images. \
                                       [optional, fraction]
auroc_high                   number?   Upper end of its 95 % interval over images. \
                                       [optional, fraction]
average_precision            number?   Average precision, with the others as positives. [fraction]
tpr_at_1fpr                  number?   Share of the others rejected where 1 % of the clean are. \
                                       [percent]
tpr_at_5fpr                  number?   Share of the others rejected where 5 % of the clean are. \
                                       [percent]
clean_rejected_at_95tpr      number?   Share of the clean rejected where 95 % of the others are. \
                                       [percent]
equal_error_rate             number?   Share of the clean rejected where the same share of the \
                                       others is accepted. [optional, percent]
"""
_UNDETECTED = """
undetected_success_at_1fpr   number?   Share of the initially correct images that the attack makes \
                                       wrong and the score accepts, at the threshold that rejects \
                                       1 % of the clean validation images. [percent]
undetected_success_at_5fpr   number?   The same at the threshold that rejects 5 % of them. [percent]
"""
_UNDETECTED_ENDS = """
undetected_success_at_1fpr_low   number?   Lower end of its 95 % Wilson interval over images. \
                                           [optional, percent]
undetected_success_at_1fpr_high  number?   Upper end of its 95 % Wilson interval over images. \
                                           [optional, percent]
undetected_success_at_5fpr_low   number?   Lower end of its 95 % Wilson interval over images. \
                                           [optional, percent]
undetected_success_at_5fpr_high  number?   Upper end of its 95 % Wilson interval over images. \
                                           [optional, percent]
"""

# What the score is worth at every threshold at once.
_RISK = """
augrc                        number?   Area under generalised risk (wrong and accepted, as a share \
                                       of all images) against coverage, over all thresholds; under \
                                       an attack of the clean and the attacked images together. \
                                       [optional, percent]
augrc_low                    number?   Lower end of its 95 % interval over images. \
                                       [percent, optional]
augrc_high                   number?   Upper end of its 95 % interval over images. \
                                       [percent, optional]
aurc                         number?   Area under selective risk (wrong among the accepted) \
                                       against coverage, of the same images. [optional, percent]
aurc_low                     number?   Lower end of its 95 % interval over images. \
                                       [percent, optional]
aurc_high                    number?   Upper end of its 95 % interval over images. \
                                       [percent, optional]
"""
AREAS = tuple(column.name for column in parse_columns(_RISK))
_RISK_SUMMARISED = _RISK.replace("[optional, percent]", "[optional, summarised, percent]")

_UNNOTICED_BY_ANY = """
undetected_success_at_1fpr   number?   Share of the initially correct images of which some \
                                       attack's copy at this eps is wrong and accepted by \
                                       class_log_likelihood, at the threshold that rejects 1 % of \
                                       the clean validation images. [optional, summarised, percent]
undetected_success_at_1fpr_low number?   Lower end of its 95 % Wilson interval over \
                                       images. [optional, percent]
undetected_success_at_1fpr_high number?   Upper end of its 95 % Wilson interval over \
                                       images. [optional, percent]
undetected_success_at_5fpr   number?   The same at the threshold that rejects 5 % of them. \
                                       [optional, summarised, percent]
undetected_success_at_5fpr_low number?   Lower end of its 95 % Wilson interval over \
                                       images. [optional, percent]
undetected_success_at_5fpr_high number?   Upper end of its 95 % Wilson interval over \
                                       images. [optional, percent]
robust_error_with_detection_at_1fpr number? Share of the images that are wrong or rejected as \
                                       they are, or of which some attack's copy within this eps \
                                       is wrong and accepted, at the threshold of 1 %. \
                                       [optional, summarised, percent]
robust_error_with_detection_at_1fpr_low number?   Lower end of its 95 % Wilson interval over \
                                       images. [optional, percent]
robust_error_with_detection_at_1fpr_high number?   Upper end of its 95 % Wilson interval over \
                                       images. [optional, percent]
robust_error_with_detection_at_5fpr number? The same at the threshold of 5 %. \
                                       [optional, summarised, percent]
robust_error_with_detection_at_5fpr_low number?   Lower end of its 95 % Wilson interval over \
                                       images. [optional, percent]
robust_error_with_detection_at_5fpr_high number?   Upper end of its 95 % Wilson interval over \
                                       images. [optional, percent]
"""

TABLES: dict[str, Table] = {
    "rows": Table(
        of="cell",
        meaning="A loss under one attack at one budget: the numbers that a reader needs first.",
        sorted_by=("label", "seed", "attack_label", "eps"),
        columns=parse_columns(f"""{_CELL}{_ATTACK}{_EPS}{_N}
error                        number    Share of the images that are classified wrongly. \
                                       [summarised, percent]
error_low                    number    Lower end of its 95 % Wilson interval over images. [percent]
error_high                   number    Upper end of its 95 % Wilson interval over images. [percent]
error_noise                  number?   Error under noise as large as the perturbation of each \
                                       image. [optional, summarised, percent]
attack_success_rate          number?   Share of the initially correct images that the attack makes \
                                       wrong; null for the clean images. [summarised, percent]
mean_max_posterior           number    Mean posterior of the predicted class. [summarised, fraction]
zero_gradient_fraction       number?   Share of the images whose first gradient is exactly 0; null \
                                       where the attack does not say. [summarised, percent]
score                        text?     Name of the detection score that the next columns are about.
auroc_all                    number?   AUROC of all clean against all attacked images. \
                                       [summarised, fraction]
auroc_all_low                number?   Lower end of its 95 % interval over images. \
                                       [optional, fraction]
auroc_all_high               number?   Upper end of its 95 % interval over images. \
                                       [optional, fraction]
auroc_successful             number?   AUROC of the initially correct images against the \
                                       successful attacks. [summarised, fraction]
auroc_successful_low         number?   Lower end of its 95 % interval over images. \
                                       [optional, fraction]
auroc_successful_high        number?   Upper end of its 95 % interval over images. \
                                       [optional, fraction]
n_successful                 integer?  Number of successful attacks: correct before, wrong after.
auroc_noise                  number?   AUROC of all clean images against the same images with \
                                       noise as large as the perturbation. [optional, fraction]
tpr_at_1fpr                  number?   Share of all attacked images rejected where 1 % of all \
                                       clean ones are. [summarised, percent]
tpr_at_1fpr_successful       number?   Share of the successful attacks rejected where 1 % of the \
                                       initially correct images are. [percent]
tpr_at_5fpr                  number?   Share of all attacked images rejected where 5 % of all \
                                       clean ones are. [summarised, percent]
tpr_at_5fpr_successful       number?   Share of the successful attacks rejected where 5 % of the \
                                       initially correct images are. [summarised, percent]
undetected_success_at_5fpr   number?   Share of the initially correct images that the attack makes \
                                       wrong and the score accepts, at the threshold that rejects \
                                       5 % of the clean validation images. [summarised, percent]
undetected_success_at_5fpr_low   number?   Lower end of its 95 % Wilson interval over images. \
                                           [optional, percent]
undetected_success_at_5fpr_high  number?   Upper end of its 95 % Wilson interval over images. \
                                           [optional, percent]
{_RISK_SUMMARISED}
outside_fraction             number?   Share of the images that the attack returned outside the \
                                       ball or the box. [optional, summarised, percent]
error_8bit                   number?   Error with every pixel rounded to a multiple of 1/255. \
                                       [optional, summarised, percent]
balanced_error               number    Mean over the classes of the share that is classified \
                                       wrongly. [optional, summarised, percent]
top5_error                   number?   Share of the images whose class is not among the five \
                                       likeliest; null for ten classes or fewer. [optional, percent]
"""),
    ),
    "summary": Table(
        of="run",
        meaning="A column of another table, summarised over the training seeds.",
        sorted_by=("label", "attack_label", "eps", "norm", "metric"),
        columns=parse_columns(f"""
loss                         text      Name of the loss, built in or a plug-in.
label                        text      What tables call the loss.
{_ATTACK}
eps                          number?   Budget; null where the number is about the whole error curve.
metric                       text      Name of the column.
n_seeds                      integer   Number of seeds that have a value.
seeds                        integers  These seeds.
values                       numbers   The value of each of them.
mean                         number?   Mean of the values; null without any.
sd                           number?   Standard deviation over the seeds; null for fewer than two.
low                          number?   Lower end of the interval; null where there is none.
high                         number?   Upper end of the interval; null where there is none.
interval                     text?     What the interval is taken over, and how.
"""),
    ),
    "detection": Table(
        of="cell",
        meaning="How well one detection score separates the images of an attack from clean ones, "
        "and right predictions from wrong ones.",
        sorted_by=("label", "seed", "attack_label", "eps", "score", "population"),
        columns=parse_columns(f"""{_CELL}{_ATTACK}{_EPS}{_SCORE}
population                   text      Which images are set against which: "all" attacked against \
                                       all clean; "successful" or "failed" attacks against the \
                                       initially correct; "noise" of their size against all \
                                       clean; "clean" images alone, attack "none", for the areas.
n_clean                      integer   Number of clean images.
n_attacked                   integer   Number of attacked images.
{_SEPARATION}{_UNDETECTED}{_UNDETECTED_ENDS}{_RISK}
threshold_5fpr               number?   The threshold that rejects 5 % of clean validation images.
clean_rejected_fraction      number?   Share of the clean images that it rejects. [percent]
adapted                      boolean?  Whether an adaptive attack raises this very score; null for \
                                       other attacks.
"""),
    ),
    "training": Table(
        of="run",
        meaning="The training of one cell.",
        sorted_by=("label", "seed"),
        columns=parse_columns(f"""{_CELL}
adversarial                  text?     The adversarial training in words; null without. [optional]
chosen_epoch                 integer?  Epoch whose weights are kept; null for the last. [optional]
curve                        curve     Numbers by name, for each epoch.
epochs                       integer   Number of epochs. [optional]
note                         text      What tables must say of the loss. [optional]
parameters                   integer   Number of trained parameters. [optional]
peak_bytes                   integer?  Largest GPU memory in use; null on a CPU. [optional]
precision                    text      Number format of the training. [optional]
processes                    integer   Largest number of processes that shared a batch. [optional]
seconds                      number    Duration of the training in seconds. [optional]
steps                        integer   Number of training steps. [optional]
"""),
    ),
    "worst_case": Table(
        of="cell",
        meaning="All attacks of a norm together, image by image: the error, and the share that is "
        "fooled and unnoticed by the likelihood.",
        sorted_by=("label", "seed", "eps", "norm"),
        columns=parse_columns(f"""{_CELL}
norm                         text      Norm of the perturbation.
{_EPS}{_N}
attacks                      texts     Labels of the attacks.
error                        number    Share of the images that are classified wrongly. \
                                       [summarised, percent]
error_low                    number    Lower end of its 95 % Wilson interval over images. [percent]
error_high                   number    Upper end of its 95 % Wilson interval over images. [percent]
strongest                    text      Label of the attack with the largest error.
strongest_error              number    Its error. [percent]
{_UNNOTICED_BY_ANY}
"""),
    ),
    "radii": Table(
        of="cell",
        optional=True,
        meaning="The curve of error against eps, of one attack or of the worst case of a norm.",
        sorted_by=("label", "seed", "attack_label", "norm"),
        columns=parse_columns(f"""{_CELL}{_ATTACK}{_N}
n_found                      integer   Number of images that are wrong at some eps.
median_radius                number?   Median over images of the smallest perturbation; null where \
                                       half of them have none. [summarised]
median_radius_low            number?   Lower end of its 95 % interval over images. [optional]
median_radius_high           number?   Upper end of its 95 % interval over images; null where it \
                                       is beyond all radii that were found. [optional]
eps_at_50_error              number?   Smallest eps with an error of 1/2 or more. [summarised]
eps_at_50_error_low          number?   Lower end of its 95 % interval over images. [optional]
eps_at_50_error_high         number?   Upper end of its 95 % interval over images; null where it \
                                       is beyond the largest eps. [optional]
area_under_error_curve       number?   Mean error over [0, eps_max]. [summarised, fraction]
eps_max                      number    Largest eps of the norm.
n_compared                   integer?  Number of images that are right and that some attack of the \
                                       norm fools; null for the worst case and for a norm of one \
                                       attack, as the next columns are. [optional]
smallest_share               number?   Share of them on which no other attack found a smaller \
                                       change, as far as the eps of this one tell. \
                                       [optional, summarised, percent]
mean_excess                  number?   By how much the attack needed more than the smallest \
                                       change that any found, on average over them. \
                                       [optional, summarised]
optimality                   number?   AttackBench's optimality: 1 - r, where r is that excess \
                                       divided by the excess of an attack that finds nothing. \
                                       [optional, summarised, fraction]
"""),
    ),
    "adaptive": Table(
        of="cell",
        optional=True,
        meaning="Detection at the budgets of the adaptive attacks, which know the detector; the "
        "table summary has the best of them, worst_case what any attack gets past the likelihood.",
        sorted_by=("label", "seed", "attack_label", "eps", "norm", "score"),
        columns=parse_columns(f"""{_CELL}
norm                         text?     Norm of the perturbation.
{_EPS}
attack                       text      Name of the attack.
attack_label                 text      What tables call the attack.
kind                         text      "naive" or "adaptive"; or the copy of each image that \
                                       serves the adversary best, "best_of_adaptive" among the \
                                       adaptive attacks, "best_of_all" among all.
{_SCORE}
adapted                      boolean   Whether the attack raises this very score.
{_N}
auroc_all                    number?   AUROC of all clean against all attacked images. \
                                       [summarised, fraction]
auroc_all_low                number?   Lower end of its 95 % interval over images. \
                                       [optional, fraction]
auroc_all_high               number?   Upper end of its 95 % interval over images. \
                                       [optional, fraction]
auroc_successful             number?   AUROC of the initially correct against successful attacks. \
                                       [fraction]
n_successful                 integer   Number of successful attacks: correct before, wrong after.
{_UNDETECTED.rstrip().removesuffix("]")}, summarised]
{_UNDETECTED_ENDS}{_RISK_SUMMARISED}
error                        number    Share of the images that are classified wrongly. [percent]
error_with_rejection_at_1fpr number    Share of the images that are wrong and accepted at the \
                                       threshold that rejects 1 % of clean validation images. \
                                       [percent]
error_with_rejection_at_5fpr number    The same at the threshold that rejects 5 % of them. [percent]
"""),
    ),
    "transfer": Table(
        of="run",
        optional=True,
        meaning="The error of one loss on images that an attack made on another loss.",
        sorted_by=("seed", "attack_label", "eps", "norm", "source", "target"),
        columns=parse_columns(f"""
seed                         integer   Training seed of both losses.
source                       text      Label of the loss that the images were made on.
target                       text      Label of the loss that they are shown to.
{_ATTACK}{_EPS}{_N}{_ERROR}
target_clean_error           number    Error of the target on the clean images. [percent]
"""),
    ),
    "per_class": Table(
        of="cell",
        optional=True,
        meaning="The images of one class under one attack at one budget.",
        sorted_by=("label", "seed", "attack_label", "eps", "norm", "class_index"),
        columns=parse_columns(f"""{_CELL}{_ATTACK}{_EPS}
class_index                  integer   Number of the class, from 0.
n                            integer   Number of images of the class.
error                        number?   Share of them that are classified wrongly; null without \
                                       any. [percent]
error_low                    number?   Lower end of its 95 % Wilson interval over images. [percent]
error_high                   number?   Upper end of its 95 % Wilson interval over images. [percent]
predicted                    integer   Number of images that are taken for the class.
false_positives              integer   Number of images of other classes that are taken for it.
false_negatives              integer   Number of images of the class that are taken for another.
false_positive_rate          number?   Share of the other classes' images that are taken for it. \
                                       [percent]
"""),
    ),
    "geometry": Table(
        of="cell",
        optional=True,
        meaning="The shape of the feature space on one set of images.",
        sorted_by=("label", "seed", "split"),
        columns=parse_columns(f"""{_CELL}
split                        text      "train", "test", or "untrained": test, before training.
{_N}
feature_dim                  integer   Number of features.
norm_mean                    number    Mean length of the features.
norm_p5                      number    The 5 % quantile of their length.
norm_p95                     number    The 95 % quantile of their length.
within_distance              number    Mean distance of an image to the mean of its class.
between_distance             number?   Mean distance between two class means.
between_distance_min         number?   Distance between the two nearest class means.
nearest_a                    integer?  One class of that pair.
nearest_b                    integer?  The other class of that pair.
fisher_ratio                 number?   Scatter between the classes over scatter within them.
within_angle_deg             number?   Mean angle of an image to the mean of its class, degrees.
between_angle_deg            number?   Mean angle between two class means, degrees.
between_angle_min_deg        number?   Smallest angle between two class means, degrees.
gradient_norm_mean           number?   Mean length of the loss's gradient by the features.
gradient_norm_correlation    number?   Rank correlation of that length with the features' length.
"""),
    ),
    "collapse": Table(
        of="cell",
        optional=True,
        meaning="Neural collapse of the features of one pass: all numbers are 0 in full collapse.",
        sorted_by=("label", "seed", "attack_label", "eps"),
        columns=parse_columns(f"""{_CELL}{_ATTACK}{_EPS}{_N}
nc1                          number?   Scatter within the classes over scatter between them: the \
                                       trace of S_W S_B⁺ over the number of classes.
nc2_lengths                  number?   Spread of the lengths of the centred class means: their \
                                       standard deviation over their mean.
nc2_cosines                  number?   Mean distance of the cosine of two centred class means to \
                                       that of a simplex, -1/(K-1).
nc3                          number?   Distance of the centred class vectors to the centred class \
                                       means, both as matrices of length 1.
"""),
    ),
    "margins": Table(
        of="cell",
        optional=True,
        meaning="Where the boundaries between two classes lie on the line between their means.",
        sorted_by=("label", "seed", "class_a", "class_b"),
        columns=parse_columns(f"""{_CELL}
class_a                      integer   The class whose mean is position 0.
class_b                      integer   The class whose mean is position 1.
length                       number    Distance between the two means.
boundary                     number?   Measured position of the boundary; null where there is none.
boundary_a                   number?   The same under the margin that class a has in training.
boundary_b                   number?   The same under the margin that class b has in training.
margin                       number?   Distance between these two.
closed_boundary              number?   Position by the closed form; null where there is none.
closed_boundary_a            number?   The same under the margin that class a has in training.
closed_boundary_b            number?   The same under the margin that class b has in training.
closed_margin                number?   Distance between these two.
difference                   number?   Largest gap between a measured position and its closed form.
"""),
    ),
    "center_estimates": Table(
        of="cell",
        optional=True,
        meaning="How well a mini-batch, and the loss's own centers, know the class means.",
        sorted_by=("label", "seed"),
        columns=parse_columns(f"""{_CELL}
batch_size                   integer   Number of images in a batch.
images_per_class             number    Mean number of images that a class has in a batch.
batch_mean_error             number    Root mean square distance of a batch's class means.
expected_error               number?   That distance as the scatter within the classes predicts it.
centers_error                number?   Root mean square distance of the loss's centers.
within_distance              number    Mean distance of an image to the mean of its class.
"""),
    ),
    "out_of_distribution": Table(
        of="cell",
        optional=True,
        meaning="How well one detection score separates images of other data from clean ones.",
        sorted_by=("label", "seed", "score", "outside"),
        columns=parse_columns(f"""{_CELL}
outside                      text      What tables call the set of other images.
outside_name                 text      Name of the set.
{_SCORE}
n_clean                      integer   Number of clean images.
n_outside                    integer   Number of other images.
{_SEPARATION}
caught_at_5fpr               number?   Share of the others rejected at the threshold that rejects \
                                       5 % of the clean validation images. [percent]
"""),
    ),
    "calibration": Table(
        of="cell",
        optional=True,
        meaning="Confidence, the posterior of the predicted class, against accuracy.",
        sorted_by=("label", "seed", "attack_label", "eps", "norm"),
        columns=parse_columns(f"""{_CELL}{_ATTACK}{_EPS}{_N}
accuracy                     number    Share of the images that are classified correctly. [percent]
mean_confidence              number    Mean confidence. [percent]
ece_equal_width              number    Expected calibration error in bins of equal width. \
                                       [summarised, percent]
ece_low                      number    Lower end of its 95 % interval over resampled images. \
                                       [percent]
ece_high                     number    Upper end of its 95 % interval over resampled images. \
                                       [percent]
ece_floor                    number    Its mean for a perfectly calibrated model, by chance \
                                       alone. [percent]
ece_floor_high               number    Its 97.5 % quantile for such a model. [percent]
ece_equal_mass               number    Expected calibration error in bins of equally many images. \
                                       [percent]
brier                        number    Brier score over all classes, in [0, 2]. [summarised]
brier_low                    number?   Lower end of its 95 % interval over images. [optional]
brier_high                   number?   Upper end of its 95 % interval over images. [optional]
nll                          number    Negative log-likelihood of the labels, nats.
temperature                  number?   Fitted on validation images; null where it was not asked for.
ece_after                    number?   As ece_equal_width, the logits divided by the temperature. \
                                       [percent]
nll_after                    number?   As nll, the logits divided by the temperature.
"""),
    ),
    "reliability": Table(
        of="cell",
        optional=True,
        meaning="The images of one bin of confidence.",
        sorted_by=("label", "seed", "attack_label", "eps", "norm", "binning", "bin"),
        columns=parse_columns(f"""{_CELL}{_ATTACK}{_EPS}
binning                      text      Bins of "equal_width" or of "equal_mass".
bin                          integer   Number of the bin, from 0.
low                          number    Lower edge of the bin.
high                         number    Upper edge of the bin.
count                        integer   Number of images in the bin.
mean_confidence              number    Their mean confidence. [percent]
accuracy                     number    Share of them that are classified correctly. [percent]
"""),
    ),
    "shifts": Table(
        of="cell",
        optional=True,
        meaning="Images that are changed but keep their label: one shift at one severity.",
        sorted_by=("label", "seed", "shift", "severity"),
        columns=parse_columns(f"""{_CELL}
shift                        text      What tables call the shift.
severity                     integer   How strong it is, from 1 to 5.
{_N}{_ERROR}
ece                          number    Expected calibration error, in bins of equal width. \
                                       [fraction]
score                        text      Name of the detection score that the next columns are about.
auroc                        number?   AUROC of all clean against the shifted images. [fraction]
auroc_low                    number?   Lower end of its 95 % interval over images. [fraction]
auroc_high                   number?   Upper end of its 95 % interval over images. [fraction]
rejected_at_5fpr             number?   Share of the shifted images rejected at the threshold that \
                                       rejects 5 % of the clean validation images. [percent]
rejected_correct_at_5fpr     number?   The same of those that are classified rightly: it counts \
                                       against the detector. [percent]
undetected_error_at_5fpr     number?   Share of the shifted images that are classified wrongly and \
                                       accepted at that threshold. [percent]
"""),
    ),
    "corruption": Table(
        of="run",
        optional=True,
        meaning="The error of a loss over all shifts, by itself and against the first loss.",
        sorted_by=("label",),
        columns=parse_columns("""
loss                         text      Name of the loss, built in or a plug-in.
label                        text      What tables call the loss.
baseline                     text      Label of the loss that it is compared with.
n_seeds                      integer   Number of seeds.
error                        number    Mean error over shifts and severities. [percent]
error_low                    number?   Lower end of its 95 % t-interval over seeds. [percent]
error_high                   number?   Upper end of its 95 % t-interval over seeds. [percent]
mce                          number?   Mean corruption error: mean over the shifts of the error \
                                       relative to the baseline's with the same seed.
mce_low                      number?   Lower end of its 95 % t-interval over seeds.
mce_high                     number?   Upper end of its 95 % t-interval over seeds.
"""),
    ),
    "crops": Table(
        of="cell",
        optional=True,
        meaning="The error on clean images from one crop of each, or from the mean of ten.",
        sorted_by=("label", "seed", "crops"),
        columns=parse_columns(f"""{_CELL}
crops                        integer   Number of crops, 1 or 10.
{_N}
top1_error                   number    Share of the images that are classified wrongly. [percent]
top1_low                     number    Lower end of its 95 % Wilson interval over images. [percent]
top1_high                    number    Upper end of its 95 % Wilson interval over images. [percent]
top5_error                   number?   Share of the images whose class is not among the five \
                                       likeliest; null for ten classes or fewer. [percent]
top5_low                     number?   Lower end of its 95 % Wilson interval over images. [percent]
top5_high                    number?   Upper end of its 95 % Wilson interval over images. [percent]
"""),
    ),
    "comparisons": Table(
        of="run",
        optional=True,
        meaning="The difference of two losses in one number, and whether it is more than chance.",
        columns=parse_columns(f"""
unit                         text      What the test resamples: "images" of a seed, or "seeds".
seed                         integer?  Training seed; null over seeds.
label_a                      text      Label of loss A.
label_b                      text      Label of loss B.
{_ATTACK}
eps                          number?   Budget; null where the number is about the whole error curve.
metric                       text      Name of the column of its table.
n                            integer?  Number of images; null over seeds.
n_seeds                      integer   Number of seeds.
value_a                      number?   The number for A; null for a median of radii of which half \
                                       were not found.
value_b                      number?   The number for B; null likewise.
difference                   number?   A less B; null where one of them is.
low                          number?   Lower end of its 95 % interval.
high                         number?   Upper end of its 95 % interval.
test                         text      Name of the test.
p_value                      number?   Two-sided p-value of no difference.
p_adjusted                   number?   The same, adjusted for the number of rows of its unit.
shown                        boolean   Whether p_adjusted is at most 0.05.
minimum_detectable           number?   Difference that would be shown with power 0.8, before \
                                       adjustment.
"""),
    ),
    "ranks": Table(
        of="run",
        optional=True,
        meaning="The rank of one loss among all in one number.",
        columns=parse_columns(f"""
unit                         text      What the tests resample: "images" of a seed, or "seeds".
seed                         integer?  Training seed; null over seeds.
{_ATTACK}
eps                          number?   Budget; null where the number is about the whole error curve.
metric                       text      Name of the column of its table.
label                        text      Label of the loss.
value                        number?   Its number; null for a median of radii of which half were \
                                       not found, which counts as the largest.
rank                         integer   Its rank, from 1 for the best.
rank_low                     integer   Best rank that the shown differences leave it.
rank_high                    integer   Worst rank that the shown differences leave it.
n_losses                     integer   Number of losses.
"""),
    ),
    "unit_tests": Table(
        of="cell",
        optional=True,
        meaning="How many of the networks that are known to be breakable, one for each image, an "
        "attack broke.",
        sorted_by=("label", "seed", "attack_label", "eps", "test"),
        columns=parse_columns(f"""{_CELL}{_ATTACK}{_EPS}
test                         text      "classifier", or of an attack on a detector "detector" and \
                                       "inverted", where the detector is turned round.
n_networks                   integer   Number of networks.
random_success               number?   Share of them that a random search breaks, with as many \
                                       points as the attack made passes, at most 200. [percent]
n                            integer   Number of networks that it does not break.
success                      number?   Share of these that the attack breaks; null for fewer than \
                                       20. [percent]
success_low                  number?   Lower end of its 95 % Wilson interval. [percent]
success_high                 number?   Upper end of its 95 % Wilson interval. [percent]
"""),
    ),
    "flags": Table(
        of="cell",
        meaning="A number that may be an artefact of the attack, and why.",
        sorted_by=("label", "seed", "attack_label", "eps", "check"),
        columns=parse_columns("""
check                        text      Name of the check.
loss                         text?     Name of the loss, built in or a plug-in.
label                        text?     What tables call the loss.
seed                         integer   Training seed.
attack_label                 text?     Label of the attack; null where every number is in doubt.
eps                          number?   Budget; null where every budget is in doubt.
value                        number    What was measured.
threshold                    number    What it exceeds.
message                      text      What that means, and what to do.
"""),
    ),
    "failures": Table(
        of="run",
        meaning="A cell, or a part of the run, that came to nothing.",
        sorted_by=("label", "seed", "stage", "reason"),
        columns=parse_columns(f"""{_CELL}
stage                        text      Stage in which it failed.
reason                       text      Why it failed.
"""),
    ),
    "trials": Table(
        of="run",
        optional=True,
        meaning="A trial of the search for a loss's settings, at one eps of its FGSM.",
        columns=parse_columns(f"""{_CELL}
trial                        integer   Number of the trial.
settings                     settings  Values that it tried, by name.
chosen                       boolean   Whether the loss keeps these values.
validation_error             number?   Clean error on the validation images; null without numbers.
validation_loss              number?   Mean loss on the validation images; null where infinite.
n                            integer?  Number of validation images.
eps                          number?   Budget of FGSM.
fgsm_error                   number?   Error under FGSM on the validation images.
reason                       text?     Why it has no numbers.
"""),
    ),
}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of results.json, with a sentence for every table and column."""
    provenance = Provenance.model_json_schema(ref_template="#/$defs/{model}")
    definitions = provenance.pop("$defs")
    head = {
        "schema_version": {"const": SCHEMA_VERSION, "description": "Version of this schema."},
        "name": {"type": "string", "description": "Name of the run."},
        "provenance": provenance,
    }
    digest = (
        "sha256 over everything else, see storage.digest_content; runs of versions before this "
        "value have none."
    )
    properties = head | {name: table.json_schema() for name, table in TABLES.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "results.json of robustloss",
        "type": "object",
        "properties": properties | {"digest": {"type": "string", "description": digest}},
        "required": [*head, *(name for name, table in TABLES.items() if not table.optional)],
        "$defs": definitions,
    }


def cell_place(cell: Mapping[str, Any]) -> Row:
    """Return the columns that name a cell: loss, label and seed."""
    return {name: cell[name] for name in ("loss", "label", "seed")}


def finite_or_null(value: float) -> float | None:
    """Return a number as results.json holds it: null for what does not exist or is not finite."""
    return value if math.isfinite(value) else None


def aims_at_label(name: str) -> bool:
    """Return whether an attack tries to change the predicted class.

    Errors, worst cases and checks are about these. The others keep the class and change how sure
    the model is of it: they stand in the tables of single passes alone, such as calibration.

    Args:
        name: of the attack, as a spec names it.
    """
    return name not in KEEPING_LABEL
