"""Plug-in losses, each broken in one way; BROKEN names the contract check that must catch it."""

import torch
from torch import nn
from torch.nn import functional as F

from robustloss.losses.base import LossHead, LossTerms


class Sound(LossHead):
    """A softmax head; every class below breaks one thing of it."""

    def __init__(self, feature_dim, num_classes):
        super().__init__(feature_dim, num_classes)
        self.linear = nn.Linear(feature_dim, num_classes)

    def logits(self, features):
        return self.linear(features)

    def loss(self, features, labels, *, progress):
        classification = F.cross_entropy(self.logits(features), labels, reduction="none")
        return LossTerms(classification, torch.zeros_like(classification))


class NearestMean(LossHead):
    """A sound pair loss: pull together, push apart, classify by the nearest class mean."""

    batching = "balanced"

    def __init__(self, feature_dim, num_classes, *, margin=1.0):
        super().__init__(feature_dim, num_classes)
        self.margin = margin
        self.register_buffer("means", torch.zeros(num_classes, feature_dim))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def logits(self, features):
        if not self.fitted:
            raise RuntimeError("no logits before fit()")
        return -(features.unsqueeze(1) - self.means).square().sum(-1)

    def loss(self, features, labels, *, progress):
        squares = (features.unsqueeze(1) - features).square().sum(-1)
        same = labels.unsqueeze(1) == labels
        terms = torch.where(same, squares, (self.margin - squares).relu()).mean(1)
        return LossTerms(terms, torch.zeros_like(terms))

    def fit(self, features, labels):
        member = F.one_hot(labels, self.num_classes).to(features.dtype).T
        self.means.copy_(member @ features / member.sum(1, keepdim=True))
        self.fitted.fill_(True)


class ConstructorRaises(Sound):
    def __init__(self, feature_dim, num_classes):
        super().__init__(feature_dim, num_classes)
        raise KeyError("radius")


class NoSuperInit(Sound):
    def __init__(self, feature_dim, num_classes):
        self.linear = nn.Linear(feature_dim, num_classes)


class SwappedDimensions(Sound):
    def __init__(self, feature_dim, num_classes):
        super().__init__(num_classes, feature_dim)


class AveragedLoss(Sound):
    def loss(self, features, labels, *, progress):
        terms = super().loss(features, labels, progress=progress)
        return LossTerms(terms.classification.mean(), terms.regulariser)


class BareLoss(Sound):
    def loss(self, features, labels, *, progress):
        return super().loss(features, labels, progress=progress).classification


class FloatRegulariser(Sound):
    def loss(self, features, labels, *, progress):
        terms = super().loss(features, labels, progress=progress)
        return LossTerms(terms.classification, 0.0)


class TransposedLogits(Sound):
    def class_log_likelihood(self, features):
        return self.logits(features).T


class NoProgress(Sound):
    def loss(self, features, labels):
        return super().loss(features, labels, progress=0.0)


class LogitsAfterFitOnly(Sound):
    ready = False

    def logits(self, features):
        if not self.ready:
            raise RuntimeError("call fit first")
        return super().logits(features)

    def loss(self, features, labels, *, progress):
        classification = F.cross_entropy(self.linear(features), labels, reduction="none")
        return LossTerms(classification, torch.zeros_like(classification))

    def fit(self, features, labels):
        self.ready = True


class PairLogitsBeforeFit(NearestMean):
    def logits(self, features):
        return -(features.unsqueeze(1) - self.means).square().sum(-1)


class BatchMeanLogits(Sound):
    def logits(self, features):
        return self.linear(features - features.mean(0))


class BareNorm(Sound):
    def logits(self, features):
        return 10.0 * self.linear(features / features.norm(dim=1, keepdim=True))


class AcosMargin(Sound):
    """The gradient of acos at cosine 1 is infinite."""

    def logits(self, features):
        cosine = F.linear(F.normalize(features), F.normalize(self.linear.weight))
        return 10.0 * torch.cos(torch.acos(cosine))


class SquareRootDistance(Sound):
    """The gradient of a square root at 0 is infinite: features on a class weight."""

    def logits(self, features):
        difference = features.unsqueeze(1) - self.linear.weight
        return -difference.square().sum(-1).sqrt()


class UnitCenterDistance(Sound):
    """The same on the unit sphere, where only a feature of norm 1 can meet a center."""

    def logits(self, features):
        difference = features.unsqueeze(1) - F.normalize(self.linear.weight)
        return -difference.square().sum(-1).sqrt()


class ExpPosterior(Sound):
    """log(exp(z) / Σ exp(z)) written as it stands overflows."""

    def loss(self, features, labels, *, progress):
        joint = self.logits(features).exp()
        posterior = joint.gather(1, labels[:, None]).squeeze(1) / joint.sum(1)
        return LossTerms(-posterior.log(), torch.zeros_like(posterior))


class Probabilities(Sound):
    def logits(self, features):
        return super().logits(features).softmax(1)

    def loss(self, features, labels, *, progress):
        classification = F.cross_entropy(self.linear(features), labels, reduction="none")
        return LossTerms(classification, torch.zeros_like(classification))


class UnnormalisedDensity(Sound):
    density = True

    def class_log_likelihood(self, features):
        return -0.5 * (features.unsqueeze(1) - self.linear.weight).square().sum(-1)


class LinearDensity(Sound):
    density = True


class LabelsInLogits(Sound):
    """Keeps the margin of the last batch, so the prediction knows its label."""

    margin = 0.0

    def loss(self, features, labels, *, progress):
        self.margin = float(labels[0])
        return super().loss(features, labels, progress=progress)

    def logits(self, features):
        return super().logits(features) + self.margin * torch.arange(self.num_classes)


class MovesCentersInLoss(Sound):
    def __init__(self, feature_dim, num_classes):
        super().__init__(feature_dim, num_classes)
        self.register_buffer("centers", torch.zeros(num_classes, feature_dim))

    def loss(self, features, labels, *, progress):
        self.centers[labels] = 0.5 * (self.centers[labels] + features.detach())
        return super().loss(features, labels, progress=progress)


class CountsCalls(Sound):
    calls = 0

    def loss(self, features, labels, *, progress):
        self.calls += 1
        terms = super().loss(features, labels, progress=progress)
        return LossTerms(terms.classification / (1 + 1e-3 * self.calls), terms.regulariser)


class ScalesFeaturesInPlace(Sound):
    def loss(self, features, labels, *, progress):
        terms = super().loss(features, labels, progress=progress)
        features.data.mul_(0.5)
        return terms


class BackwardInLoss(Sound):
    def loss(self, features, labels, *, progress):
        terms = super().loss(features, labels, progress=progress)
        terms.classification.mean().backward(retain_graph=True)
        return terms


class FavouriteClass(Sound):
    def loss(self, features, labels, *, progress):
        terms = super().loss(features, labels, progress=progress)
        return LossTerms(terms.classification * (1.0 + labels), terms.regulariser)


class RankedLogits(Sound):
    def logits(self, features):
        return super().logits(features) + torch.arange(self.num_classes, device=features.device)


class DetachedFeatures(Sound):
    def loss(self, features, labels, *, progress):
        return super().loss(features.detach(), labels, progress=progress)


class NoGradLogits(Sound):
    @torch.no_grad()
    def class_log_likelihood(self, features):
        return self.logits(features)


class ForgottenParameter(Sound):
    def parameter_groups(self, lr):
        return [{"params": [self.linear.weight], "lr": lr}]


class DoubledParameter(Sound):
    def parameter_groups(self, lr):
        return [*super().parameter_groups(lr), {"params": [self.linear.bias], "lr": lr}]


class PlainTensor(Sound):
    def __init__(self, feature_dim, num_classes):
        super().__init__(feature_dim, num_classes)
        self.offsets = [torch.zeros(num_classes)]

    def logits(self, features):
        return super().logits(features) + self.offsets[0]


class StaysOnTheCpu(Sound):
    def logits(self, features):
        return super().logits(features) + torch.zeros(features.shape[0], self.num_classes)


class ForgetsItsFit(Sound):
    """What fit() learns is neither parameter nor buffer."""

    bias = 0.0

    def fit(self, features, labels):
        self.bias = features.mean().item()

    def class_log_likelihood(self, features):
        return self.logits(features) + self.bias


class LateBuffer(NearestMean):
    """The buffer that fit() makes is unknown to a new head."""

    def fit(self, features, labels):
        super().fit(features, labels)
        self.register_buffer("spread", features.std(0))


class LearnsNothing(Sound):
    def loss(self, features, labels, *, progress):
        terms = super().loss(features, labels, progress=progress)
        return LossTerms(0.0 * terms.classification, terms.regulariser)


class LearnsTheOpposite(Sound):
    def loss(self, features, labels, *, progress):
        terms = super().loss(features, labels, progress=progress)
        return LossTerms(-terms.classification, terms.regulariser)


class DivergesLate(Sound):
    def loss(self, features, labels, *, progress):
        terms = super().loss(features, labels, progress=progress)
        broken = float("nan") if 0.8 < progress < 0.9 else 1.0
        return LossTerms(broken * terms.classification, terms.regulariser)


class OneVector(Sound):
    def class_vectors(self):
        return self.linear.weight[0]


class TuplesAsPair(NearestMean):
    def tuples(self, features, labels):
        return len(features), len(labels)


class TuplesPerImage(NearestMean):
    def tuples(self, features, labels):
        return (labels.unsqueeze(1) == labels).sum(1)


class TrainingLogitsWithoutProgress(Sound):
    def training_logits(self, features, labels):
        return self.logits(features)


class NarrowTrainingLogits(Sound):
    def training_logits(self, features, labels, *, progress):
        return self.logits(features)[:, :1]


class NoteOfNothing(Sound):
    def note(self):
        return None


class NoFit(NearestMean):
    fit = LossHead.fit


class FitsInSilence(NearestMean):
    def fit(self, features, labels):
        super().fit(features, labels)
        self.fitted.fill_(False)


class PlainFittedFlag(NearestMean):
    """That fit() has run is not saved."""

    def __init__(self, feature_dim, num_classes, *, margin=1.0):
        super().__init__(feature_dim, num_classes, margin=margin)
        del self.fitted
        self.fitted = False

    def fit(self, features, labels):
        self.means.copy_(torch.stack([features[labels == k].mean(0) for k in labels.unique()]))
        self.fitted = True


class LastWord(BaseException):
    """No Exception, and nobody can say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class RaisesAnything(Sound):
    def loss(self, features, labels, *, progress):
        raise LastWord


BROKEN = {
    ConstructorRaises: ("builds", "KeyError: 'radius'"),
    RaisesAnything: ("shapes", "LastWord: its text cannot be made"),
    NoSuperInit: ("builds", "AttributeError"),
    SwappedDimensions: ("builds", "Call super().__init__(feature_dim, num_classes)"),
    AveragedLoss: ("shapes", "loss().classification (shape ()) must have shape (28,)"),
    BareLoss: ("shapes", "loss() returned one tensor of shape (28,). Return LossTerms"),
    FloatRegulariser: ("shapes", "loss().regulariser (=float) must be a floating tensor"),
    TransposedLogits: ("shapes", "class_log_likelihood() (shape (7, 28)) must have shape (28, 7)"),
    NoProgress: ("shapes", "TypeError"),
    NoFit: ("shapes", "after fit(). Define fit(features, labels)"),
    FitsInSilence: ("shapes", "after fit(). Let fit() note in a buffer"),
    OneVector: ("optional methods", "class_vectors() (shape (5,)) must have shape (7, 5)"),
    TuplesAsPair: ("optional methods", "tuples() returned tuple. Return one count"),
    TuplesPerImage: ("optional methods", "tuples() returned shape (28,)"),
    TrainingLogitsWithoutProgress: ("optional methods", "TypeError"),
    NarrowTrainingLogits: ("optional methods", "training_logits() (shape (28, 1))"),
    NoteOfNothing: ("optional methods", "note() returned NoneType"),
    LogitsAfterFitOnly: ("logits before fit", "batching = 'shuffled'"),
    PairLogitsBeforeFit: ("logits before fit", "raise RuntimeError"),
    BatchMeanLogits: ("each image on its own", "logits() of a batch differs"),
    BareNorm: ("finite at hostile features", "zero features is not finite"),
    AcosMargin: ("finite at hostile features", "is not finite"),
    SquareRootDistance: ("finite at hostile features", "features equal to linear.weight[label]"),
    UnitCenterDistance: ("finite at hostile features", "features on unit class vectors"),
    ExpPosterior: ("finite at hostile features", "loss() at features of norm 1e4"),
    Probabilities: ("posterior sums to one", "logits() are probabilities"),
    UnnormalisedDensity: ("density integrates to one", "integrates to [6.28"),
    LinearDensity: ("density integrates to one", "Mend the constant, or set density = False"),
    LabelsInLogits: ("label-free logits", "depend on the labels of the last loss()"),
    MovesCentersInLoss: ("label-free logits", "loss() changed 'centers'"),
    CountsCalls: ("label-free logits", "another value when it is called again"),
    ScalesFeaturesInPlace: ("label-free logits", "changed the features in place"),
    BackwardInLoss: ("label-free logits", "left gradients in ['linear.weight', 'linear.bias']"),
    FavouriteClass: ("permutation of classes", "loss() changed when the classes were renamed"),
    RankedLogits: ("permutation of classes", "logits() and class_log_likelihood() changed"),
    DetachedFeatures: ("gradient reaches features", "loss() is not connected"),
    NoGradLogits: ("gradient reaches features", "class_log_likelihood() is not connected"),
    ForgottenParameter: ("parameter groups", "'linear.bias' stands in 0 groups"),
    DoubledParameter: ("parameter groups", "'linear.bias' stands in 2 groups"),
    PlainTensor: ("device move", "'offsets' is a plain tensor. Use register_buffer"),
    StaysOnTheCpu: ("device move", "expected device"),
    ForgetsItsFit: ("save and load", "class_log_likelihood() differ after load_state_dict()"),
    PlainFittedFlag: ("save and load", "a note that fit() has run too"),
    LateBuffer: ("save and load", "Unexpected key(s) in state_dict"),
    LearnsNothing: ("learns a toy problem", "% after 150 steps"),
    LearnsTheOpposite: ("learns a toy problem", "% after 150 steps"),
    DivergesLate: ("learns a toy problem", "no number at step 121"),
}
