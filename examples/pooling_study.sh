#!/bin/sh
# Does the pooling between VGG's convolutions and its linear layers matter, on small images?
# usage: sh pooling_study.sh CIFAR10/         (a folder with train/ and test/ of ten class folders)
# 11 convolutions, 3 linear layers, Adam 1e-4, batches of 64, 10 epochs, no augmentation.
set -eu
photos=$1
shift
study="--backbone vgg_small --optimizer adam --lr 1e-4 --weight-decay 0
    --schedule constant --batch 64 --augment none --epochs 10 --val-fraction 0.05"

tlkit summary vgg16 --depth 1
tlkit summary vgg_small --depth 2

# With the pooling and without: at 32 px the map is 2 x 2 either way, so this is one network, and the
# two fits end with the same numbers bit for bit (tests/plugins/test_small.py proves it of a step).
tlkit fit "$photos" $study --attach last --pool keep --out runs/pool-kept "$@"
tlkit fit "$photos" $study --attach last --pool flatten --out runs/pool-none "$@"

# What the study's author asked for: global average pooling, which leaves a quarter of the vector.
tlkit fit "$photos" $study --attach replace --head vgg --hidden 4096 --dropout 0.2 --pool avg \
    --out runs/pool-average "$@"

# The same network with a schedule and a mirror in place of a constant rate and no augmentation, in
# fewer epochs. (On a processor with bf16 units, bf16 is what --precision auto means.)
tlkit fit "$photos" --backbone vgg_small --optimizer adam --lr 4e-4 --weight-decay 0 \
    --schedule one-cycle --batch 64 --augment mirror --epochs 8 --val-fraction 0.05 \
    --monitor accuracy --clip 1 --attach last --pool keep --out runs/pool-one-cycle "$@"
