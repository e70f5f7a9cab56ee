"""Tables of what lies behind the errors: classes, feature space, calibration, other images."""

from robustloss.results.columns import Table, parse_columns
from robustloss.results.tables.shared import ATTACK, CELL, EPS, ERROR, SCORE, SEPARATION, N

DETAILED: dict[str, Table] = {
    "per_class": Table(
        of="cell",
        optional=True,
        meaning="The images of one class under one attack at one budget.",
        sorted_by=("label", "seed", "attack_label", "eps", "norm", "class_index"),
        columns=parse_columns(f"""{CELL}{ATTACK}{EPS}
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
        columns=parse_columns(f"""{CELL}
split                        text      "train", "test", or "untrained": test, before training.
{N}
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
        columns=parse_columns(f"""{CELL}{ATTACK}{EPS}{N}
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
        columns=parse_columns(f"""{CELL}
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
        columns=parse_columns(f"""{CELL}
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
        columns=parse_columns(f"""{CELL}
outside                      text      What tables call the set of other images.
outside_name                 text      Name of the set.
{SCORE}
n_clean                      integer   Number of clean images.
n_outside                    integer   Number of other images.
{SEPARATION}
caught_at_5fpr               number?   Share of the others rejected at the threshold that rejects \
                                       5 % of the clean validation images. [percent]
"""),
    ),
    "calibration": Table(
        of="cell",
        optional=True,
        meaning="Confidence, the posterior of the predicted class, against accuracy.",
        sorted_by=("label", "seed", "attack_label", "eps", "norm"),
        columns=parse_columns(f"""{CELL}{ATTACK}{EPS}{N}
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
        columns=parse_columns(f"""{CELL}{ATTACK}{EPS}
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
        columns=parse_columns(f"""{CELL}
shift                        text      What tables call the shift.
severity                     integer   How strong it is, from 1 to 5.
{N}{ERROR}
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
        columns=parse_columns(f"""{CELL}
crops                        integer   Number of crops, 1 or 10.
{N}
top1_error                   number    Share of the images that are classified wrongly. [percent]
top1_low                     number    Lower end of its 95 % Wilson interval over images. [percent]
top1_high                    number    Upper end of its 95 % Wilson interval over images. [percent]
top5_error                   number?   Share of the images whose class is not among the five \
                                       likeliest; null for ten classes or fewer. [percent]
top5_low                     number?   Lower end of its 95 % Wilson interval over images. [percent]
top5_high                    number?   Upper end of its 95 % Wilson interval over images. [percent]
"""),
    ),
}
