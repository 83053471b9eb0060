#!/bin/sh
# How far does a frozen network get on cats and dogs, with its classifier replaced, or with a head
# behind it; and what do cross-validation and fine-tuning add?
# usage: sh cats_and_dogs.sh PHOTOS/ [--backbone vgg16_bn]
set -eu
photos=$1
shift
# A hidden layer of 500 with dropout, trained in steps, ended by early stopping.
diary="--head mlp --hidden 500 --dropout 0.3 --epochs 10 --patience 3"

# A: the classifier replaced (for vgg16_bn: 25088 -> 500 -> 2). B: behind the network's 1000 outputs.
tlkit fit "$photos" $diary --attach replace --freeze backbone --out runs/replaced "$@"
tlkit fit "$photos" $diary --attach append --freeze backbone --out runs/appended "$@"
# Both load again from their files, alone and as one.
tlkit evaluate "$photos/test" --head runs/replaced --head runs/appended

# What tlkit does by itself: the head is linear, and solved.
tlkit fit "$photos" --out runs/solved "$@"
tlkit evaluate "$photos/test" --head runs/solved --tta

# How much of that is luck? Ten folds over the training photos, which share one pass over them.
tlkit fit "$photos" --folds 10 --out runs/folds "$@"

# Fine-tuning: first the head, then everything, more slowly the earlier the stage.
tlkit fit "$photos" --strategy probe+finetune --epochs 3 \
    --stage-decay 0.8 --out runs/finetuned "$@"
