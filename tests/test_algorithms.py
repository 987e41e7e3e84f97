"""One batch through the algorithms, on real detectors and real images."""

import copy
import random

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmrazor.registry import MODELS

from lshfm_mm.errors import ConfigError
from lshfm_mm.losses import lsh_loss
from lshfm_mm.utils.rng import forked_rng

from .conftest import mmdet_config

FPN = dict(layer='neck', record='output')


@pytest.fixture
def build(make_config):
    """Build the algorithm of a shapes config; overrides of its model."""

    def make(name='faster_rcnn_lshfm', **overrides):
        cfg = make_config(
            name, {f'model.{k}': v for k, v in overrides.items()}
        )
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        model.init_weights()
        return model.train()

    return make


def losses_of(model, batch):
    """The losses of a batch, after a seed for the samplers."""
    torch.manual_seed(5)
    data = model.data_preprocessor(copy.deepcopy(batch), training=True)
    return model(**data, mode='loss')


def record(module, log):
    """Log the arguments and outputs of each call of a module."""
    return module.register_forward_hook(
        lambda _, inputs, output: log.append((inputs, output))
    )


def test_both_models_get_the_same_boxes(build, batch):
    model, student_calls, teacher_calls = build(), [], []
    record(model.student.roi_head.bbox_roi_extractor, student_calls)
    record(model.teacher.roi_head.bbox_roi_extractor, teacher_calls)
    losses_of(model, batch)
    (s_inputs, s_output), (t_inputs, t_output) = (
        *student_calls,
        *teacher_calls,
    )
    assert len(s_inputs[1]) > 32  # more than one image's worth
    assert torch.equal(s_inputs[1], t_inputs[1])
    assert len(s_output) == len(t_output) == len(s_inputs[1])
    # The teacher pools on a pyramid of its own.
    assert not torch.equal(s_inputs[0][0], t_inputs[0][0])


def test_the_losses_compare_the_inputs_of_the_class_layers(build, batch):
    """Against features computed by hand from the recorded boxes."""
    model, calls = build(), []
    record(model.student.roi_head.bbox_roi_extractor, calls)
    losses = losses_of(model, batch)
    features = []
    for detector, pyramid in (
        (model.student, calls[0][0][0]),
        (model.teacher, None),
    ):
        if pyramid is None:
            data = model.data_preprocessor(copy.deepcopy(batch), True)
            pyramid = detector.extract_feat(data['inputs'])
        head = detector.roi_head
        x = head.bbox_roi_extractor(pyramid[:4], calls[0][0][1]).flatten(1)
        for layer in head.bbox_head.shared_fcs:
            x = torch.relu(layer(x))
        features.append(x)
    s, t = features
    loss = model.distiller.distill_losses['loss_roi_lsh']
    torch.testing.assert_close(
        losses['distill.loss_roi_lsh'],
        7 * lsh_loss(s, t, loss.weight, loss.bias),
    )
    torch.testing.assert_close(
        losses['distill.loss_roi_l2'], 7 * (s - t).square().mean()
    )


def test_the_teacher_runs_only_what_is_tapped(build, batch):
    model, calls = build(), []
    for part in ('backbone', 'neck', 'rpn_head', 'roi_head.bbox_head'):
        module = model.teacher.get_submodule(part)
        module.register_forward_hook(lambda *_, part=part: calls.append(part))
    losses_of(model, batch)
    assert calls == ['backbone', 'neck', 'roi_head.bbox_head']


def test_an_fpn_tap_alone_leaves_the_teachers_head_alone(build, batch):
    model = build(
        'faster_rcnn_lshfm',
        **{
            'distiller.taps': dict(_delete_=True, fpn=FPN),
            'distiller.losses': dict(
                _delete_=True, fpn=[dict(type='L2Loss', normalize=False)]
            ),
        },
    )
    calls = []
    record(model.teacher.roi_head.bbox_head, calls)
    losses = losses_of(model, batch)
    assert losses['distill.loss_fpn_l2'] > 0
    assert not calls


def test_fpn_levels_are_added_up_by_one_entry(build, batch):
    model = build(
        **{
            'distiller.taps.fpn': FPN,
            'distiller.losses.fpn': [
                dict(type='L2Loss', normalize=False, div_element=True),
                dict(type='LSHLoss', feature_dim=64, std=0.1),
                dict(type='PKDLoss', loss_weight=6),
            ],
        }
    )
    calls = {'student': [], 'teacher': []}
    record(model.student.neck, calls['student'])
    record(model.teacher.neck, calls['teacher'])
    losses = losses_of(model, batch)
    ((_, s_levels),), ((_, t_levels),) = calls['student'], calls['teacher']
    assert len(s_levels) == 4
    l2 = sum(
        (s - t).square().mean()
        for s, t in zip(s_levels, t_levels, strict=True)
    )
    torch.testing.assert_close(losses['distill.loss_fpn_l2'], l2)
    lsh = model.distiller.distill_losses['loss_fpn_lsh']
    rows = [
        [x.permute(0, 2, 3, 1).reshape(-1, 64) for x in levels]
        for levels in (s_levels, t_levels)
    ]
    expected = sum(
        lsh_loss(s, t, lsh.weight, lsh.bias)
        for s, t in zip(*rows, strict=True)
    )
    torch.testing.assert_close(losses['distill.loss_fpn_lsh'], expected)
    pkd = model.distiller.distill_losses['loss_fpn_pkd']
    torch.testing.assert_close(
        losses['distill.loss_fpn_pkd'], pkd(s_levels, t_levels)
    )


def test_gradients_reach_the_student_and_not_the_teacher(build, batch):
    model = build(**{'distiller.losses.roi': [dict(type='LSHLoss')]})
    losses_of(model, batch)['distill.loss_roi_lsh'].backward()
    student = model.student
    for part in ('backbone.conv1', 'neck', 'roi_head.bbox_head.shared_fcs'):
        grads = [p.grad for p in student.get_submodule(part).parameters()]
        assert any(g is not None and g.any() for g in grads), part
    # The class layer lies behind the tap.
    assert student.roi_head.bbox_head.fc_cls.weight.grad is None
    assert all(p.grad is None for p in model.teacher.parameters())


def test_the_teacher_is_a_guest(build, batch):
    model = build()
    teacher_keys = model.teacher.state_dict()
    assert teacher_keys
    assert not any('teacher' in key for key in model.state_dict())
    guests = {id(p) for p in model.teacher.parameters()}
    assert not guests & {id(p) for p in model.parameters()}
    assert model.teacher not in set(model.modules())
    assert not any(p.requires_grad for p in model.teacher.parameters())
    model.teacher.train()  # somebody else's mistake
    assert not any(m.training for m in model.train().teacher.modules())
    assert not any(m.training for m in model.eval().teacher.modules())
    # An EMA copy shares it, and leaves it where it is.
    ema = copy.deepcopy(model).to(torch.float64)
    assert ema.teacher is model.teacher
    assert {p.dtype for p in ema.parameters()} == {torch.float64}
    assert {p.dtype for p in model.teacher.parameters()} == {torch.float32}
    # It moves and is cast with its host.
    model.to(torch.float64)
    assert {p.dtype for p in model.teacher.parameters()} == {torch.float64}
    model.to('meta')
    assert {p.device.type for p in model.teacher.parameters()} == {'meta'}


def test_training_leaves_the_teacher_as_it_was(build, batch):
    model = build()
    before = copy.deepcopy(model.teacher.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        loss, _ = model.parse_losses(losses_of(model, batch))
        loss.backward()
        optimizer.step()
    after = model.teacher.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_records_do_not_outlive_the_step(build, batch):
    model = build()
    losses_of(model, batch)
    for manager in (
        model.distiller.student_recorders,
        model.distiller.teacher_recorders,
    ):
        assert [r.data_buffer for r in manager.recorders.values()] == [
            [] for _ in manager.recorders
        ]


def test_nothing_is_recorded_once_distillation_has_stopped(build, batch):
    model = build()
    model.distillation_stopped = True
    losses = losses_of(model, batch)
    assert not any('distill' in x for x in losses)
    for manager in (
        model.distiller.student_recorders,
        model.distiller.teacher_recorders,
    ):
        assert not any(x.data_buffer for x in manager.recorders.values())


def test_a_failed_look_leaves_the_student_in_training(build, batch):
    model = build()
    training = [x for x in model.modules() if x.training]
    with pytest.raises(RuntimeError, match='Expected 3D'):
        model.record_student(torch.rand(0), None)
    assert [x for x in model.modules() if x.training] == training


def test_copies_record_for_themselves(build, batch):
    """An EMA copy is not to write into the recorders of its original."""
    model = build()
    twin = copy.deepcopy(model)
    calls = [
        x.distiller.student_recorders.get_recorder('labels at roi')
        for x in (model, twin)
    ]
    with twin.distiller.student_recorders:
        data = twin.data_preprocessor(copy.deepcopy(batch), training=True)
        twin.student(**data, mode='loss')
    assert [len(x.data_buffer) for x in calls] == [0, 1]


def test_no_roi_is_zero_with_a_gradient(build, batch):
    """Images without objects whose RPN proposes nothing."""
    model = build(
        'faster_rcnn_lshfm',
        **{'architecture.train_cfg.rpn_proposal.min_bbox_size': 10**6},
    )
    for sample in batch['data_samples']:
        sample.gt_instances = sample.gt_instances[:0]
    calls = []
    record(model.student.roi_head.bbox_roi_extractor, calls)
    losses = losses_of(model, batch)
    assert calls[0][0][1].shape == (0, 5)
    for name in ('distill.loss_roi_lsh', 'distill.loss_roi_l2'):
        assert losses[name].item() == 0
        losses[name].backward(retain_graph=True)
    head = model.student.roi_head.bbox_head
    assert not head.shared_fcs[0].weight.grad.any()


@pytest.mark.parametrize('weights', ['uniform', 'balanced'])
def test_a_tap_for_each_loss_gives_what_one_tap_gives(build, batch, weights):
    """Bit for bit; with fewer RoIs, and into an inherited head."""
    tap = dict(layer='roi_head.bbox_head.fc_cls', weights=weights)
    lsh, l2 = dict(type='LSHLoss'), dict(type='FeatureL2Loss')
    found = []
    for taps, losses in (
        (dict(roi=tap), dict(roi=[lsh, l2])),
        (dict(lsh=tap, l2=tap), dict(lsh=[lsh], l2=[l2])),
    ):
        model = build(
            max_rois=16,
            inherit=True,
            **{
                'distiller.taps': dict(taps, _delete_=True),
                'distiller.losses': dict(losses, _delete_=True),
            },
        )
        found.append(losses_of(model, batch))
    one, two = found
    assert torch.equal(
        one.pop('distill.loss_roi_lsh'), two.pop('distill.loss_lsh_lsh')
    )
    assert torch.equal(
        one.pop('distill.loss_roi_featurel2'),
        two.pop('distill.loss_l2_featurel2'),
    )
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert all(
            map(
                torch.equal,
                *([x] if torch.is_tensor(x) else x for x in (value, two[key])),
            )
        )


def test_building_leaves_the_random_state_of_the_student(make_config):
    cfg = make_config('faster_rcnn_lshfm').model
    torch.manual_seed(0)
    MODELS.build(cfg)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    MMDET_MODELS.build(make_config('faster_rcnn_student').model)
    assert torch.equal(state, torch.get_rng_state())


def test_building_leaves_the_random_states_of_numpy_and_python(make_config):
    cfg = make_config('faster_rcnn_lshfm').model
    np.random.seed(0)
    random.seed(0)
    before = np.random.get_state()[1].tolist(), random.getstate()
    with forked_rng():
        np.random.rand()
        random.random()
        MODELS.build(cfg)
    assert before == (np.random.get_state()[1].tolist(), random.getstate())


def test_stopping_distillation_stops_the_teacher(build, batch):
    model, calls = build(), []
    record(model.teacher.backbone, calls)
    model.distillation_stopped = True
    losses = losses_of(model, batch)
    assert not calls
    assert not any(key.startswith('distill.') for key in losses)


def test_inherit_takes_what_agrees_outside_the_backbone(
    build, teacher_checkpoint
):
    wide = {  # as wide as the teacher: its backbone agrees in shape, too
        'architecture.backbone.base_channels': 8,
        'architecture.neck.in_channels': [8, 16, 32, 64],
    }
    plain, heir = build(**wide), build(inherit=True, **wide)
    teacher = torch.load(teacher_checkpoint, weights_only=True)['state_dict']
    before, after = plain.student.state_dict(), heir.student.state_dict()
    changed = {k for k in after if not torch.equal(before[k], after[k])}
    agree = {
        key
        for key, value in after.items()
        if key in teacher and teacher[key].shape == value.shape
    }
    assert any(k.startswith('backbone.') for k in agree)
    taken = {k for k in agree if not k.startswith('backbone.')}
    assert all(torch.equal(after[key], teacher[key]) for key in taken)
    assert changed <= taken
    assert 'roi_head.bbox_head.fc_cls.weight' in changed
    assert 'neck.lateral_convs.0.conv.weight' in changed


def test_std_and_width_come_from_the_teachers_class_layer(build):
    model = build()
    loss = model.distiller.distill_losses['loss_roi_lsh']
    weight = model.teacher.roi_head.bbox_head.fc_cls.weight
    assert loss.weight.shape == (4 * weight.shape[1], weight.shape[1])
    expected = float(weight.std())
    assert float(loss.weight.std()) == pytest.approx(expected, rel=0.01)


def test_a_switch_turns_taps_on(build):
    both = {
        'distiller.taps.fpn': FPN,
        'distiller.losses.fpn': [dict(type='L2Loss')],
    }
    names = [
        set(
            build(
                **both, **{'distiller.active': active}
            ).distiller.distill_losses
        )
        for active in (['roi'], ['fpn'], None)
    ]
    roi, fpn = {'loss_roi_lsh', 'loss_roi_l2'}, {'loss_fpn_l2'}
    assert names == [roi, fpn, roi | fpn]


def test_a_connector_joins_unequal_widths(build, batch):
    narrow = {
        'architecture.roi_head.bbox_head.fc_out_channels': 32,
        'distiller.connectors': dict(
            roi=dict(
                type='TorchNNConnector',
                module_name='Linear',
                module_args=dict(in_features=32, out_features=256),
            )
        ),
    }
    model = build(**narrow)
    losses = losses_of(model, batch)
    sum(v for k, v in losses.items() if 'distill' in k).backward()
    connector = model.distiller.connectors['roi']
    assert all(p.grad.any() for p in connector.parameters())


def test_the_advice_for_unequal_widths_of_an_fpn_works(build, batch):
    """Read the connector off the error, put it in, and train with it."""
    narrow = {
        'architecture.neck.out_channels': 32,
        'architecture.rpn_head.in_channels': 32,
        'architecture.roi_head.bbox_roi_extractor.out_channels': 32,
        'architecture.roi_head.bbox_head.in_channels': 32,
        'distiller.active': ['fpn'],
        'distiller.taps.fpn': FPN,
        'distiller.losses.fpn': [
            dict(type='L2Loss', normalize=False, div_element=True)
        ],
    }
    with pytest.raises(ConfigError) as error:
        build(**narrow)
    advice = str(error.value).split('connectors=')[1]
    connectors = eval(advice)  # noqa: S307
    model = build(**narrow, **{'distiller.connectors': connectors})
    calls = []
    record(model.distiller.connectors['fpn'].convs[0], calls)
    losses_of(model, batch)['distill.loss_fpn_l2'].backward()
    assert len(calls) == 4
    assert all(p.grad.any() for p in model.distiller.connectors.parameters())


def test_a_second_initialisation_does_not_inherit_again(build):
    model = build(inherit=True)
    weight = model.student.roi_head.bbox_head.fc_cls.weight
    torch.nn.init.zeros_(weight)
    model.init_weights()
    assert not weight.any()


def small_retinanet(base_channels):
    cfg = mmdet_config('retinanet/retinanet_r18_fpn_1x_coco.py').model
    cfg.backbone.update(base_channels=base_channels, init_cfg=None)
    cfg.neck.in_channels = [base_channels * 2**i for i in range(4)]
    cfg.neck.out_channels = 16
    cfg.bbox_head.update(num_classes=6, in_channels=16, feat_channels=16)
    return cfg


@pytest.fixture
def dense():
    """A RetinaNet that mimics the input of the class layer of another."""
    return MODELS.build(
        dict(
            _scope_='mmrazor',
            type='FeatureMimicDistill',
            architecture=small_retinanet(4),
            teacher=MMDET_MODELS.build(small_retinanet(8)),
            distiller=dict(
                type='LSHFMDistiller',
                taps=dict(head='bbox_head.retina_cls'),
                losses=dict(
                    head=[
                        dict(type='LSHLoss'),
                        dict(type='L2Loss', normalize=False, div_element=True),
                    ]
                ),
            ),
        )
    ).train()


def test_a_dense_head_is_mimicked_on_all_levels(dense, batch):
    losses_of(dense, batch)  # the first step looks for what need not run
    calls = {'student': [], 'teacher': []}
    record(dense.student.bbox_head.retina_cls, calls['student'])
    record(dense.teacher.bbox_head.retina_cls, calls['teacher'])
    losses = losses_of(dense, batch)
    assert len(calls['student']) == len(calls['teacher']) == 5
    # One set of samples: the mean over the locations of all levels.
    pairs = [
        (s[0][0], t[0][0])
        for s, t in zip(calls['student'], calls['teacher'], strict=True)
    ]
    expected = sum((s - t).square().sum() for s, t in pairs)
    expected = expected / sum(s.numel() for s, _ in pairs)
    torch.testing.assert_close(losses['distill.loss_head_l2'], expected)


@pytest.mark.usefixtures('_without_onednn')
def test_losses_stay_in_float32_under_autocast(dense, batch):
    """On a dense head: mmcv has no bfloat16 RoI pooling on the CPU."""
    calls = []
    record(dense.student.bbox_head.retina_cls, calls)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = losses_of(dense, batch)
    assert {inputs[0].dtype for inputs, _ in calls} == {torch.bfloat16}
    for name in ('distill.loss_head_lsh', 'distill.loss_head_l2'):
        assert losses[name].dtype == torch.float32
    dense.parse_losses(losses)[0].backward()
    grads = [p.grad for p in dense.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in grads)


def test_the_long_form_of_mmrazor_gives_the_same_losses(build, batch):
    short = build()
    source = 'roi_head.bbox_head.fc_cls'
    recorder = dict(feature=dict(type='ModuleInputs', source=source))
    argument = dict(recorder='feature', data_idx=0)
    mapping = dict(
        s_feature=dict(argument, from_student=True),
        t_feature=dict(argument, from_student=False),
    )
    losses = [dict(type='LSHLoss', loss_weight=7)]
    long = build(
        **{
            'distiller': dict(
                _delete_=True,
                type='LSHFMDistiller',
                student_recorders=recorder,
                teacher_recorders=recorder,
                distill_losses=dict(loss_mine=losses[0]),
                loss_forward_mappings=dict(loss_mine=mapping),
            )
        }
    )
    assert torch.equal(
        losses_of(short, batch)['distill.loss_roi_lsh'],
        losses_of(long, batch)['distill.loss_mine'],
    )


def retinanet():
    cfg = mmdet_config('retinanet/retinanet_r50_fpn_1x_coco.py')
    return cfg.model


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        (
            {'distiller.taps.roi': 'roi_head.bbox_head.fc_cl'},
            'taps.roi: the student has no layer '
            "'roi_head.bbox_head.fc_cl'; did you mean "
            "'roi_head.bbox_head.fc_cls'",
        ),
        (
            {'architecture.roi_head.bbox_head.fc_out_channels': 32},
            'taps.roi: the student is 32 wide and the teacher 256; add to the '
            "distiller connectors=dict(roi=dict(type='LinearConnector', "
            'in_features=32, out_features=256))',
        ),
        (
            {'distiller.losses.rio': [dict(type='LSHLoss')]},
            "taps: has no 'rio' among ['roi']; did you mean 'roi'",
        ),
        ({'distiller.taps.fpn': 'neck'}, "losses: has none for the tap 'fpn'"),
        (
            {'distiller.taps.roi': dict(_delete_=True, student='neck')},
            'taps.roi: needs layer, or student and teacher',
        ),
        (
            {'distiller.taps.roi': dict(FPN, _delete_=True, record='in')},
            "taps.roi.record: must be one of ('input', 'output'), but got "
            "'in'",
        ),
        (
            {'distiller.losses.roi': [dict(type='LSHLos')]},
            "losses.roi: 'LSHLos' is not in the registry; did you mean "
            "'LSHLoss'",
        ),
        (
            {'distiller.losses.roi': 'LSHLoss'},
            "losses.roi: must be a list of loss configs, but holds 'L'",
        ),
        (
            {'distiller.losses.roi': [dict(type='DKDLoss')]},
            "losses.roi: DKDLoss needs ['preds_S', 'preds_T', 'gt_labels'], "
            'but a tap gives two features',
        ),
        (
            {'distiller.losses.roi': [dict(type='LSHLoss', feature_dim=128)]},
            'loss_roi_lsh.feature_dim: is 128, but the teacher is 256 wide',
        ),
        (
            {'distiller.taps.roi': 'rpn_head.rpn_cls'},
            "taps: the teacher does not run 'rpn_head.rpn_cls' on the "
            "student's RoIs",
        ),
        (
            {'distiller.distill_deliveries': dict(a=dict(type='x'))},
            'distill_deliveries: are not possible where the teacher',
        ),
        (
            {'student_trainable': False},
            'student_trainable: must be True or a list',
        ),
        (
            {'teacher.pretrained': True},
            'teacher.pretrained: is True; name the weights in teacher_ckpt',
        ),
        (
            {'teacher.backbone': dict(depth=18)},
            "teacher: beside cfg_path it has ['backbone']",
        ),
        (
            {
                'distiller.taps.fpn': FPN,
                'distiller.losses.fpn': [dict(type='LSHLoss')],
            },
            "loss_fpn_lsh.std: 'teacher' needs a tap on the input of a class "
            "layer; take 'features'",
        ),
        (
            {'distiller.losses.roi': [dict(type='LSHLoss', num_hashes=0)]},
            'num_hashes: must be an int >= 1, but got 0',
        ),
        (
            {'architecture': dict(_delete_=True, **retinanet())},
            'architecture: RoIMimicDistill needs a two-stage detector whose '
            'boxes are RoIs of its neck, but got RetinaNet',
        ),
        ({'type': 'FeatureMimicDistill'}, 'use RoIMimicDistill'),
        (
            {'architecture': dict(_delete_=True, type='FasterRCCN')},
            "architecture.type: 'FasterRCCN' is in none of the registries",
        ),
        (
            {'teacher.cfg_path': 'teacher_of_nobody.py'},
            'teacher.cfg_path: no such file: teacher_of_nobody.py',
        ),
        (
            {'teacher_ckpt': None},
            'teacher_ckpt: is None, the teacher would be random',
        ),
        ({'teacher_trainable': True}, 'teacher_trainable: must be False here'),
        (
            {'distiller.taps.roi': dict(FPN, _delete_=True, weights='fg')},
            "taps.roi.weights: must be one of ('uniform', 'balanced', "
            "'positive', 'confidence', 'correct', 'inside'), but got 'fg'",
        ),
        (
            {
                'distiller.taps.roi': dict(
                    FPN, _delete_=True, weights='confidence'
                )
            },
            "taps.roi.weights: 'confidence' needs a tap on the input of a "
            'class layer',
        ),
        (
            {
                'distiller.taps.roi': dict(
                    _delete_=True,
                    layer='roi_head.bbox_head.fc_cls',
                    weights='balanced',
                ),
                'distiller.losses.roi': [dict(type='PKDLoss')],
            },
            'losses.roi: PKDLoss cannot weigh samples',
        ),
        ({'max_rois': 0}, 'max_rois: must be an int >= 1, but got 0'),
        (
            {'distiller.type': 'ConfigurableDistiller'},
            'distiller.type: must be LSHFMDistiller',
        ),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(build, overrides, message):
    with pytest.raises(ConfigError) as error:
        build(**overrides)
    assert message in str(error.value)
    assert '\n' not in str(error.value)


def save_broken(path, state, kind):
    """Write one of the wrong teacher checkpoints."""
    if kind == 'missing':
        state = {k: v for k, v in state.items() if 'fc_' not in k}
    elif kind == 'misshapen':
        state['roi_head.bbox_head.fc_cls.weight'] = torch.zeros(81, 256)
    elif kind == 'no weights':
        torch.save({'epoch': 3}, path)
        return
    elif kind == 'empty':
        path.write_bytes(b'')
        return
    elif kind == 'no mapping':
        torch.save({'state_dict': 3}, path)
        return
    elif kind == 'not a checkpoint':
        path.write_text('not a checkpoint')
        return
    torch.save({'state_dict': state}, path)


@pytest.mark.parametrize(
    ('kind', 'messages'),
    [
        (
            'missing',
            (
                'keys 4 missing: roi_head.bbox_head.fc_cls.weight, ',
                'give the checkpoint of this very teacher config',
            ),
        ),
        (
            'misshapen',
            (
                '1 misshapen: roi_head.bbox_head.fc_cls.weight (81, 256) for '
                '(7, 256)',
            ),
        ),
        ('no weights', ("holds no weights; its keys are ['epoch']",)),
        ('no mapping', ('holds no weights',)),
        ('empty', ('is not a readable checkpoint (',)),
        ('not a checkpoint', ('is not a readable checkpoint (',)),
    ],
)
def test_a_wrong_teacher_checkpoint_is_an_error(
    build, teacher_checkpoint, tmp_path, kind, messages
):
    state = torch.load(teacher_checkpoint, weights_only=True)['state_dict']
    path = tmp_path / 'wrong.pth'
    save_broken(path, state, kind)
    with pytest.raises(ConfigError) as error:
        build(teacher_ckpt=str(path))
    for message in ('teacher_ckpt: ', str(path), *messages):
        assert message in str(error.value)
    assert '\n' not in str(error.value)


def test_an_absent_teacher_checkpoint_is_an_error(build):
    with pytest.raises(
        ConfigError, match='no such file: nowhere.pth in .*train'
    ):
        build(teacher_ckpt='nowhere.pth')


def test_a_misfit_can_be_asked_for(build, teacher_checkpoint, tmp_path):
    state = torch.load(teacher_checkpoint, weights_only=True)['state_dict']
    path = tmp_path / 'part.pth'
    save_broken(path, state, 'missing')
    model = build(teacher_ckpt=str(path), teacher_strict=False)
    loaded = model.teacher.state_dict()
    key = 'roi_head.bbox_head.shared_fcs.0.weight'
    assert torch.equal(loaded[key], state[key])


def test_a_student_that_is_built_already_has_the_given_preprocessor(build):
    """As in MMRazor: the algorithm's own is built from what it gets."""
    student = build().student
    model = build(
        **{
            'architecture': student,
            'data_preprocessor': dict(
                type='mmdet.DetDataPreprocessor', mean=[1.0, 2, 3], std=[1] * 3
            ),
        }
    )
    assert model.data_preprocessor.mean.flatten().tolist() == [1.0, 2, 3]
