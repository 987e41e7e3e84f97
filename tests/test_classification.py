"""Classifiers of mmpretrain under the same algorithm, losses and export."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmpretrain.registry import MODELS as MMPRETRAIN
from mmpretrain.structures import DataSample
from mmrazor.registry import MODELS

from lshfm_mm.distillers.sample_weights import correctly_classified
from lshfm_mm.errors import ConfigError
from lshfm_mm.export.folding import fold_embedding, has_embedding

CLASSES, SIDE = 5, 32
CORRECT = dict(layer='head.fc', weights='correct')
LSH = dict(type='LSHLoss', num_hashes=64, seed=3, loss_weight=5)
L2 = dict(type='FeatureL2Loss', loss_weight=2)
STAGE1 = dict(calculate_student_loss=False, student_trainable=['neck'])


def classifier(base=8, head='LinearClsHead', neck=None, num_classes=CLASSES):
    """A ResNet-18 with few channels."""
    neck = neck or dict(type='GlobalAveragePooling')
    return dict(
        _scope_='mmpretrain',
        type='ImageClassifier',
        backbone=dict(
            type='ResNet', depth=18, stem_channels=base, base_channels=base
        ),
        neck=neck,
        head=dict(
            type=head,
            num_classes=num_classes,
            in_channels=neck.get('out_channels', 8 * base),
        ),
        data_preprocessor=dict(
            type='ClsDataPreprocessor',
            mean=[128.0] * 3,
            std=[58.0] * 3,
            num_classes=num_classes,
            to_onehot=head != 'LinearClsHead',
        ),
    )


def embedded(base=4, width=64, **more):
    """A student with an embedding as wide as the teacher."""
    neck = dict(
        type='LinearNeck',
        in_channels=8 * base,
        out_channels=width,
        gap_dim=2,
        norm_cfg=None,
    )
    return classifier(base, neck=neck, **more)


def distil(student, teacher, tap, losses, **more):
    torch.manual_seed(0)
    if isinstance(teacher, dict):
        teacher = MMPRETRAIN.build(teacher)
        teacher.init_weights()
    model = MODELS.build(
        dict(
            _scope_='mmrazor',
            type='FeatureMimicDistill',
            architecture=student,
            teacher=teacher,
            distiller=dict(
                type='LSHFMDistiller',
                taps=dict(pooled=tap),
                losses=dict(pooled=losses),
            ),
            **more,
        )
    )
    model.init_weights()
    return model.train()


def images(number=12, label=True):
    """A raw batch, as a dataloader with default_collate gives it."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(
        256, (number, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8
    )
    samples = [DataSample() for _ in range(number)]
    for index, sample in enumerate(samples):
        if label:
            sample.set_gt_label(index % CLASSES)
    return dict(inputs=pixels, data_samples=samples)


def step(model, batch):
    """Losses of a batch, what hooks saw and the student's gradients."""
    seen = {}

    def watch(name, layer):
        return layer.register_forward_hook(
            lambda _, inputs, output: seen.update(
                {name: inputs[0], f'{name} logits': output}
            )
        )

    handles = [
        watch(x, getattr(model, x).get_submodule('head.fc'))
        for x in ('student', 'teacher')
    ]
    data = model.data_preprocessor(copy.deepcopy(batch), training=True)
    losses = model(**data, mode='loss')
    for handle in handles:
        handle.remove()
    return losses, seen, data


def label_what_it_says(model, batch, right):
    """Give each image the teacher's class, or another one."""
    data = model.data_preprocessor(copy.deepcopy(batch), training=False)
    with torch.no_grad():
        logits = model.teacher(data['inputs'], mode='tensor')
    for index, sample in enumerate(batch['data_samples']):
        label = int(logits[index].argmax())
        sample.set_gt_label((label + (index not in right)) % CLASSES)


def reference(loss, s_feature, t_feature, model):
    """The loss of one sample, by the paper, in float64."""
    s_feature, t_feature = s_feature.double(), t_feature.double()
    if loss['type'] == 'FeatureL2Loss':
        return 2 * (s_feature - t_feature).square().mean()
    layer = model.distiller.distill_losses['loss_pooled_lsh']
    total = 0
    for weight in layer.weight.double():
        code = float(weight @ t_feature > 0)
        logit = weight @ s_feature
        total = total + F.softplus(logit) - code * logit
    return 5 * total / len(layer.weight)


@pytest.mark.parametrize(
    'right', [{0, 3, 4, 7, 11}, {5}, set(range(12))], ids=len
)
def test_correct_only_is_the_loop(right):
    """The mean over the images that the teacher gets right, and only them."""
    model = distil(classifier(4), classifier(4), CORRECT, [LSH, L2])
    batch = images()
    label_what_it_says(model, batch, right)
    losses, seen, _ = step(model, batch)
    feature = seen['student'].detach().requires_grad_()
    for loss in (LSH, L2):
        short = loss['type'].removesuffix('Loss').lower()
        found = losses[f'distill.loss_pooled_{short}']
        expected = sum(
            reference(loss, feature[i], seen['teacher'][i], model)
            for i in right
        ) / len(right)
        assert float(found) == pytest.approx(float(expected), rel=1e-5)
        (gradient,) = torch.autograd.grad(
            found, seen['student'], retain_graph=True
        )
        (wanted,) = torch.autograd.grad(expected, feature)
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-9)
        wrong = [i for i in range(12) if i not in right]
        assert not gradient[wrong].any()


def test_none_correct_is_zero_with_a_gradient():
    model = distil(classifier(4), classifier(4), CORRECT, [LSH, L2])
    batch = images()
    label_what_it_says(model, batch, set())
    losses, seen, _ = step(model, batch)
    total = sum(v for k, v in losses.items() if k.startswith('distill'))
    assert total.item() == 0
    (gradient,) = torch.autograd.grad(total, seen['student'])
    assert not gradient.any() and gradient.isfinite().all()


def test_mixed_images_have_the_class_they_have_most_of():
    logits = torch.tensor([[3.0, 1, 0], [0, 1, 0], [0, 0, 1]])
    scores = torch.tensor([[0.6, 0.4, 0], [0.7, 0.3, 0], [0.1, 0, 0.9]])
    found = correctly_classified(logits, scores)
    assert found.tolist() == [[True, False, True]]
    # A batch augmentation of mmpretrain, from the raw batch on.
    student = classifier(4)
    student['train_cfg'] = dict(augments=[dict(type='Mixup', alpha=0.3)])
    student['head']['loss'] = dict(type='CrossEntropyLoss', use_soft=True)
    model = distil(student, classifier(4), CORRECT, [L2])
    losses, seen, data = step(model, images())
    target = torch.stack([x.gt_score for x in data['data_samples']])
    assert ((target > 0) & (target < 1)).any()
    right = seen['teacher logits'].argmax(1) == target.argmax(1)
    assert right.any()
    expected = sum(
        reference(L2, seen['student'][i], seen['teacher'][i], model)
        for i in right.nonzero()[:, 0]
    ) / int(right.sum())
    found = float(losses['distill.loss_pooled_featurel2'])
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_correct_needs_one_label_and_the_same_classes():
    many = classifier(4, head='MultiLabelLinearClsHead')
    with pytest.raises(ConfigError, match='one label each, but the student'):
        distil(many, copy.deepcopy(many), CORRECT, [L2])
    model = distil(embedded(), classifier(8), CORRECT, [L2], **STAGE1)
    batch = images(2)
    batch['data_samples'][1].set_gt_label([0, 2])
    with pytest.raises(ConfigError, match='images with one label each; use'):
        step(model, batch)
    with pytest.raises(ConfigError, match='student has 5 and the teacher 7'):
        distil(classifier(4), classifier(4, num_classes=7), CORRECT, [L2])
    tap = dict(layer='neck', record='output', weights='correct')
    with pytest.raises(ConfigError, match="'correct' needs a tap on the inp"):
        distil(classifier(4), classifier(4), tap, [L2])


def test_the_teacher_runs_once_and_without_losses():
    model = distil(classifier(4), classifier(4), 'head.fc', [L2])
    calls = []
    model.teacher.backbone.register_forward_hook(
        lambda *_: calls.append('backbone')
    )
    model.teacher.head.loss_module.register_forward_hook(
        lambda *_: calls.append('loss')
    )
    losses, *_ = step(model, images())
    assert calls == ['backbone']
    assert {'student.loss', 'distill.loss_pooled_featurel2'} == set(losses)


def test_logits_by_the_divergence_of_mmrazor():
    """KL at temperature 4, beside the features."""
    tap = dict(layer='head.fc', record='output')
    divergence = dict(type='KLDivergence', tau=4, loss_weight=3)
    model = distil(classifier(4), classifier(4), tap, [divergence])
    losses, seen, _ = step(model, images())
    ours, theirs = (
        (seen[f'{x} logits'].double() / 4).log_softmax(1)
        for x in ('student', 'teacher')
    )
    expected = 3 * 16 * (theirs.exp() * (theirs - ours)).sum(1).mean()
    found = float(losses['distill.loss_pooled_kldivergence'])
    assert found == pytest.approx(float(expected), rel=1e-4)


def test_a_teacher_without_a_classifier():
    """A self-supervised backbone: pooled features, and a std that is given."""
    teacher = classifier(8)
    del teacher['head']
    tap = dict(layer='neck', record='output')
    sizes = dict(feature_dim=64, std=0.05)
    model = distil(embedded(), teacher, tap, [{**LSH, **sizes}])
    data = model.data_preprocessor(images(), training=True)
    losses = model(**data, mode='loss')
    losses['distill.loss_pooled_lsh'].backward()
    assert model.student.backbone.conv1.weight.grad.any()
    with torch.no_grad():
        (feature,) = model.teacher.extract_feat(data['inputs'])
    layer = model.distiller.distill_losses['loss_pooled_lsh']
    assert layer.weight.std().item() == pytest.approx(0.05, rel=0.1)
    model.student.eval()
    (ours,) = model.student.extract_feat(data['inputs'])
    codes = (feature @ layer.weight.T > 0).float()
    expected = 5 * F.binary_cross_entropy_with_logits(
        ours @ layer.weight.T, codes
    )
    model.eval()
    found = model(**data, mode='loss')['distill.loss_pooled_lsh']
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    with pytest.raises(ConfigError, match="std: 'teacher' needs a tap on the"):
        distil(embedded(), teacher, tap, [{**LSH, 'feature_dim': 64}])


# Stages


def test_only_the_embedding_is_trained():
    """Stage 1: no labels; the backbone and its statistics stay."""
    model = distil(
        embedded(),
        classifier(8),
        'head.fc',
        [LSH, L2],
        **STAGE1,
    )
    before = copy.deepcopy(model.student.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), 0.1, weight_decay=0.1)
    for _ in range(2):
        data = model.data_preprocessor(images(label=False), training=True)
        losses = model(**data, mode='loss')
        assert all(x.startswith('distill.') for x in losses)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    changed = {
        key.split('.')[0]
        for key, value in model.student.state_dict().items()
        if not torch.equal(value, before[key])
    }
    assert changed == {'neck'}


@pytest.mark.parametrize(
    'parts, message',
    [
        (['nekc'], "student_trainable: the student has no 'nekc'; did you"),
        ('neck', 'student_trainable: must be True or a list'),
        ([], 'student_trainable: must be True or a list'),
        (True, 'student_trainable: is True, but with calculate_student_los'),
    ],
)
def test_wrong_parts(parts, message):
    settings = {**STAGE1, 'student_trainable': parts}
    with pytest.raises(ConfigError, match=message):
        distil(embedded(), classifier(8), 'head.fc', [L2], **settings)


def test_inheriting_through_the_embedding():
    """The classifier has the teacher's shape, and starts from its weights."""
    model = distil(embedded(), classifier(8), 'head.fc', [L2], inherit=True)
    for name, value in model.teacher.head.state_dict().items():
        assert torch.equal(model.student.head.state_dict()[name], value)
    frozen = distil(
        embedded(),
        classifier(8),
        'head.fc',
        [L2],
        inherit=True,
        student_trainable=['backbone', 'neck'],
    )
    losses, *_ = step(frozen, images())
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    assert frozen.student.head.fc.weight.grad is None
    assert frozen.student.neck.fc.weight.grad.any()
    assert frozen.student.backbone.conv1.weight.grad.any()


# Folding

BACKBONES = {
    'ResNet': (dict(depth=18, base_channels=8, stem_channels=8), 64),
    'MobileNetV2': (dict(widen_factor=0.25), 1280),
    'VGG': (dict(depth=11, norm_cfg=dict(type='BN')), 512),
}
POOLS = {
    'average': dict(type='LinearNeck', gap_dim=2, norm_cfg=None),
    'max': dict(type='GlobalMaxPooling'),
}


@pytest.mark.parametrize('head', ['LinearClsHead', 'MultiLabelLinearClsHead'])
@pytest.mark.parametrize('pool', POOLS)
@pytest.mark.parametrize('kind', BACKBONES)
def test_folding_keeps_the_logits(kind, pool, head):
    settings, width = BACKBONES[kind]
    model = ConfigDict(
        _scope_='mmpretrain',
        type='ImageClassifier',
        backbone=dict(type=kind, **settings),
        neck=dict(**POOLS[pool], in_channels=width, out_channels=48),
        head=dict(type=head, num_classes=7, in_channels=48),
    )
    torch.manual_seed(0)
    student = MMPRETRAIN.build(model)
    student.init_weights()
    for layer in (student.head.fc, student.neck.fc):
        torch.nn.init.normal_(layer.weight, std=0.2)
        torch.nn.init.normal_(layer.bias)
    folded = fold_embedding(model, student.state_dict())
    assert folded.difference < 1e-5
    plain = MMPRETRAIN.build(folded.model)
    plain.load_state_dict(folded.state)
    assert plain.head.fc.weight.shape == (7, width)
    assert not list(plain.neck.parameters())
    pixels = torch.randn(3, 3, 96, 64)
    with torch.no_grad():
        expected = student.eval()(pixels)
        found = plain.eval()(pixels)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert model.neck.type == POOLS[pool]['type']  # as it was


def test_the_norm_that_mmpretrain_puts_there_and_several_necks_are_seen():
    model = ConfigDict(embedded())
    del model.neck['norm_cfg']
    assert not has_embedding(model)
    model = ConfigDict(embedded())
    model.neck = [model.neck]  # as detectors may have
    assert not has_embedding(model)


@pytest.mark.parametrize(
    'part, changes',
    [
        ('neck', dict(norm_cfg=dict(type='BN1d'))),
        ('neck', dict(act_cfg=dict(type='ReLU'))),
        ('neck', dict(gap_dim=0)),
        ('neck', dict(type='GlobalAveragePooling')),
        ('head', dict(type='CosineClsHead')),
    ],
)
def test_what_is_no_linear_embedding_stays(part, changes):
    model = ConfigDict(embedded())
    assert has_embedding(model)
    model[part].update(changes)
    assert not has_embedding(model)


def test_a_fold_that_differs_is_refused(monkeypatch):
    monkeypatch.setattr('lshfm_mm.export.folding.TOLERANCE', 1e-12)
    model = ConfigDict(embedded())
    student = MMPRETRAIN.build(model)
    with pytest.raises(ConfigError, match='the folded student differs by'):
        fold_embedding(model, student.state_dict())
