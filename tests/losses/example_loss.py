import torch
from torch import nn
from torch.nn import functional as F

from robustloss.losses.base import LossHead, LossTerms


class CosineSoftmax(LossHead):
    """Softmax over scale times the cosine between features and class weights."""

    def __init__(self, feature_dim, num_classes, *, scale=10.0):
        super().__init__(feature_dim, num_classes)
        self.scale = scale
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(num_classes, feature_dim)))

    def logits(self, features):
        return self.scale * F.linear(F.normalize(features), F.normalize(self.weight))

    def loss(self, features, labels, *, progress):
        classification = F.cross_entropy(self.logits(features), labels, reduction="none")
        return LossTerms(classification, torch.zeros_like(classification))
