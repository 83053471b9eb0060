#!/bin/sh
# Many crops, dense, or both: which test-time evaluation of the VGG paper is worth its time?
# usage: sh vgg_evaluation.sh PHOTOS/         (a folder with train/ and test/ of class folders, of
#                                              photos larger than 64 px)
# A VGG for 32 px, trained with scale jitter in [37, 73] (the paper's [256, 512] of 224), judged at
# three scales: 37, 55 and 73 px.
set -eu
photos=$1
shift
tlkit fit "$photos" --backbone vgg_small --attach last --augment vgg --epochs 30 \
    --optimizer adam --lr 3e-4 --weight-decay 0 --schedule one-cycle \
    --batch 64 --label-smoothing 0.1 --out runs/vgg "$@"
for policy in vgg150 dense dense+crops; do
    tlkit evaluate "$photos/test" --head runs/vgg --tta $policy
done
