"""Columns that several tables have, as text for `columns.parse_columns`."""

CELL = """
loss                         text      Name of the loss, built in or a plug-in.
label                        text      What tables call the loss.
seed                         integer   Training seed.
"""
ATTACK = """
attack                       text      Name of the attack; "none" for the clean images.
attack_label                 text      What tables call the attack.
norm                         text?     Norm of the perturbation; null for the clean images.
"""
EPS = """
eps                          number    Budget of the attack in its norm, with pixels in [0, 1].
"""
N = """
n                            integer   Number of images.
"""
ERROR = """
error                        number    Share of the images that are classified wrongly. [percent]
error_low                    number    Lower end of its 95 % Wilson interval over images. [percent]
error_high                   number    Upper end of its 95 % Wilson interval over images. [percent]
"""
SCORE = """
score                        text      Name of the detection score.
"""
AUROC_ALL = """
auroc_all                    number?   AUROC of all clean against all attacked images. \
                                       [summarised, fraction]
auroc_all_low                number?   Lower end of its 95 % interval over images. \
                                       [optional, fraction]
auroc_all_high               number?   Upper end of its 95 % interval over images. \
                                       [optional, fraction]
"""
# How well a score separates clean images from others, attacked or of another distribution.
SEPARATION = """
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
