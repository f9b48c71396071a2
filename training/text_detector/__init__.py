"""The recipe of text-nano: corpus, synthetic images, distillation, export, evaluation."""
