#!/bin/sh
# Does a net of two inception modules learn digits with plain SGD, as the PyTorch tutorial says?
# usage: sh inception_digits.sh MNIST/        (a folder with train/ and test/ of ten class folders)
# Pixels in [0, 1], grey, not augmented; SGD 0.01, momentum 0.5, batches of 64, 9 epochs, NLL loss
# (which is the cross-entropy that tlkit trains with).
set -eu
photos=$1
shift
tutorial="--optimizer sgd --lr 0.01 --momentum 0.5 --weight-decay 0
    --schedule constant --batch 64 --augment none --epochs 9 --val-fraction 0.05"

tlkit summary inception_small --depth 2
tlkit fit "$photos" --backbone inception_small $tutorial --out runs/inception "$@"

# The exercises: more modules, with a schedule that lets them; a ResNet and a DenseNet, on the same
# digits in colour at 32 px.
modern="--optimizer sgd --lr 0.05 --schedule one-cycle --batch 128
    --augment none --epochs 3 --val-fraction 0.05"
tlkit fit "$photos" --backbone inception_small_deep $modern --out runs/inception-deep "$@"
tlkit fit "$photos" --backbone resnet20 $modern --out runs/resnet "$@"
tlkit fit "$photos" --backbone densenet40 $modern --out runs/densenet "$@"
