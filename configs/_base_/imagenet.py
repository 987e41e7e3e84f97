"""ImageNet and the schedule of the paper: 100 epochs on 8 GPUs x 32 images."""

_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs32.py',
    'mmpretrain::_base_/schedules/imagenet_bs256.py',
    'mmpretrain::_base_/default_runtime.py',
]

data_root = 'data/imagenet/'
data_help = 'python -m webbrowser https://www.image-net.org/download.php'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader

# The paper's numbers are of the average of the last ten epochs.
default_hooks = dict(checkpoint=dict(max_keep_ckpts=10))
