"""mmcv's operators on torchvision: a stand-in for the module ``mmcv._ext``.

The functions have the names, the argument names and the habit of mmcv's
compiled module: most write their results into tensors that they are given.
They run where their inputs are, in float32 for half precision, and read maps
in any memory format. Only torch, torchvision and numpy are imported here,
since the set-up copies this folder into mmcv as ``mmcv/_ext``.
"""

from .absent import NOT_SERVED, not_served
from .boxes import (
    bbox_overlaps,
    nms,
    nms_match,
    softnms,
)
from .carafe import (
    carafe_backward,
    carafe_forward,
    carafe_naive_backward,
    carafe_naive_forward,
)
from .deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from .deform_roi_pool import (
    deform_roi_pool_backward,
    deform_roi_pool_forward,
)
from .focal_loss import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softmax_focal_loss_backward,
    softmax_focal_loss_forward,
)
from .info import (
    get_compiler_version,
    get_compiling_cuda_version,
)
from .masked_conv import (
    masked_col2im_forward,
    masked_im2col_forward,
)
from .ms_deform_attn import (
    ms_deform_attn_backward,
    ms_deform_attn_forward,
)
from .roi_align import (
    roi_align_backward,
    roi_align_forward,
)
from .roi_pool import (
    roi_pool_backward,
    roi_pool_forward,
)
from .sync_bn import (
    sync_bn_backward_data,
    sync_bn_backward_param,
    sync_bn_forward_mean,
    sync_bn_forward_output,
    sync_bn_forward_var,
)

__all__ = [
    'bbox_overlaps',
    'carafe_backward',
    'carafe_forward',
    'carafe_naive_backward',
    'carafe_naive_forward',
    'deform_conv_backward_input',
    'deform_conv_backward_parameters',
    'deform_conv_forward',
    'deform_roi_pool_backward',
    'deform_roi_pool_forward',
    'get_compiler_version',
    'get_compiling_cuda_version',
    'masked_col2im_forward',
    'masked_im2col_forward',
    'modulated_deform_conv_backward',
    'modulated_deform_conv_forward',
    'ms_deform_attn_backward',
    'ms_deform_attn_forward',
    'nms',
    'nms_match',
    'roi_align_backward',
    'roi_align_forward',
    'roi_pool_backward',
    'roi_pool_forward',
    'sigmoid_focal_loss_backward',
    'sigmoid_focal_loss_forward',
    'softmax_focal_loss_backward',
    'softmax_focal_loss_forward',
    'softnms',
    'sync_bn_backward_data',
    'sync_bn_backward_param',
    'sync_bn_forward_mean',
    'sync_bn_forward_output',
    'sync_bn_forward_var',
]

globals().update({name: not_served(name) for name in NOT_SERVED})
