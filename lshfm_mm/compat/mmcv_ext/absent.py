"""Functions of ``mmcv._ext`` that torchvision has no operator for.

All that the Python of mmcv 2.1.0 and of onedl-mmcv 2.3.6 asks for and that is
not in this package: rotated and quadrilateral boxes, point clouds, sparse
convolutions, and operators for text and for generated images.
"""

from collections.abc import Callable
from typing import Any, NoReturn

NOT_SERVED = (
    'active_rotated_filter_backward',
    'active_rotated_filter_forward',
    'assign_score_withk_backward',
    'assign_score_withk_forward',
    'ball_query_forward',
    'bezier_align_backward',
    'bezier_align_forward',
    'bias_act',
    'border_align_backward',
    'border_align_forward',
    'box_iou_quadri',
    'box_iou_rotated',
    'chamfer_distance_backward',
    'chamfer_distance_forward',
    'contour_expand',
    'convex_giou',
    'convex_iou',
    'correlation_backward',
    'correlation_forward',
    'diff_iou_rotated_sort_vertices_forward',
    'dynamic_point_to_voxel_backward',
    'dynamic_point_to_voxel_forward',
    'dynamic_voxelize_forward',
    'filtered_lrelu',
    'filtered_lrelu_act_',
    'furthest_point_sampling_forward',
    'furthest_point_sampling_with_dist_forward',
    'fused_bias_leakyrelu',
    'fused_indice_conv_forward',
    'gather_points_backward',
    'gather_points_forward',
    'get_indice_pairs_2d_backward',
    'get_indice_pairs_2d_forward',
    'get_indice_pairs_3d_backward',
    'get_indice_pairs_3d_forward',
    'get_indice_pairs_4d_forward',
    'group_points_backward',
    'group_points_forward',
    'hard_voxelize_forward',
    'indice_conv_backward',
    'indice_conv_forward',
    'indice_maxpool_backward',
    'indice_maxpool_forward',
    'iou3d_boxes_overlap_bev_forward',
    'iou3d_nms3d_forward',
    'iou3d_nms3d_normal_forward',
    'knn_forward',
    'line_nms_forward',
    'min_area_polygons',
    'nms_quadri',
    'nms_rotated',
    'pixel_group',
    'points_in_boxes_all_forward',
    'points_in_boxes_cpu_forward',
    'points_in_boxes_part_forward',
    'points_in_polygons_forward',
    'prroi_pool_backward',
    'prroi_pool_coor_backward',
    'prroi_pool_forward',
    'psamask_backward',
    'psamask_forward',
    'riroi_align_rotated_backward',
    'riroi_align_rotated_forward',
    'roi_align_rotated_backward',
    'roi_align_rotated_forward',
    'roiaware_pool3d_backward',
    'roiaware_pool3d_forward',
    'roipoint_pool3d_forward',
    'rotated_feature_align_backward',
    'rotated_feature_align_forward',
    'stack_ball_query_forward',
    'stack_group_points_backward',
    'stack_group_points_forward',
    'three_interpolate_backward',
    'three_interpolate_forward',
    'three_nn_forward',
    'tin_shift_backward',
    'tin_shift_forward',
    'upfirdn2d',
)


def not_served(name: str) -> Callable[..., NoReturn]:
    """A function that raises when it is called.

    mmcv looks for all of its functions when it is imported, so each is there.

    Args:
        name (str): Name of the function in ``mmcv._ext``.

    Returns:
        Callable: The function.
    """
    operator = name.removesuffix('_forward').removesuffix('_backward')

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            f"mmcv's operator {operator} needs the compiled mmcv: "
            f'python -m lshfm_mm install_mmcv --compiled'
        )

    refuse.__name__ = name
    return refuse
