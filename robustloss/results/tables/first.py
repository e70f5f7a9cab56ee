"""The tables that a reader needs first: attack by attack, over seeds, detection, worst case."""

from robustloss.results.columns import Table, parse_columns
from robustloss.results.tables.shared import (
    ATTACK,
    AUROC_ALL,
    CELL,
    EPS,
    ERROR,
    SCORE,
    SEPARATION,
    N,
)

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
RISK = """
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
_RISK_SUMMARISED = RISK.replace("[optional, percent]", "[optional, summarised, percent]")
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

FIRST: dict[str, Table] = {
    "rows": Table(
        of="cell",
        meaning="A loss under one attack at one budget: the numbers that a reader needs first.",
        sorted_by=("label", "seed", "attack_label", "eps"),
        columns=parse_columns(f"""{CELL}{ATTACK}{EPS}{N}
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
{AUROC_ALL}
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
{ATTACK}
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
        columns=parse_columns(f"""{CELL}{ATTACK}{EPS}{SCORE}
population                   text      Which images are set against which: "all" attacked against \
                                       all clean; "successful" or "failed" attacks against the \
                                       initially correct; "noise" of their size against all \
                                       clean; "clean" images alone, attack "none", for the areas.
n_clean                      integer   Number of clean images.
n_attacked                   integer   Number of attacked images.
{SEPARATION}{_UNDETECTED}{_UNDETECTED_ENDS}{RISK}
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
        columns=parse_columns(f"""{CELL}
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
        columns=parse_columns(f"""{CELL}
norm                         text      Norm of the perturbation.
{EPS}{N}
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
        columns=parse_columns(f"""{CELL}{ATTACK}{N}
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
        columns=parse_columns(f"""{CELL}
norm                         text?     Norm of the perturbation.
{EPS}
attack                       text      Name of the attack.
attack_label                 text      What tables call the attack.
kind                         text      "naive" or "adaptive"; or the copy of each image that \
                                       serves the adversary best, "best_of_adaptive" among the \
                                       adaptive attacks, "best_of_all" among all.
{SCORE}
adapted                      boolean   Whether the attack raises this very score.
{N}
{AUROC_ALL}
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
{ATTACK}{EPS}{N}{ERROR}
target_clean_error           number    Error of the target on the clean images. [percent]
"""),
    ),
}
