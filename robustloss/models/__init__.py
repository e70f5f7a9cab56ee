"""Networks: backbones, the Classifier around them, models from elsewhere, weight files."""
