"""Tables of loss against loss, of doubts, and of what came to nothing."""

from robustloss.results.columns import Table, parse_columns
from robustloss.results.tables.shared import ATTACK, CELL, EPS

COMPARED: dict[str, Table] = {
    "comparisons": Table(
        of="run",
        optional=True,
        meaning="The difference of two losses in one number, and whether it is more than chance.",
        columns=parse_columns(f"""
unit                         text      What the test resamples: "images" of a seed, or "seeds".
seed                         integer?  Training seed; null over seeds.
label_a                      text      Label of loss A.
label_b                      text      Label of loss B.
{ATTACK}
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
{ATTACK}
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
        columns=parse_columns(f"""{CELL}{ATTACK}{EPS}
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
        columns=parse_columns(f"""{CELL}
stage                        text      Stage in which it failed.
reason                       text      Why it failed.
"""),
    ),
    "trials": Table(
        of="run",
        optional=True,
        meaning="A trial of the search for a loss's settings, at one eps of its FGSM.",
        columns=parse_columns(f"""{CELL}
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
