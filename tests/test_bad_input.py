"""Bad calls: the type of error that PyTorch gives, a message that helps, and nothing half-changed.

A case is a line of Python, run once with the names of each library: all its statements but the last
go well. `bad_calls.names` says what a line can use.
"""

import copy

import pytest
import torch
from bad_calls import LIBRARIES, Outcome, accepted, attempt, names
from pair import build, unlike
from test_optimizer import sign_descent

import minioptim

# The line; a part of what ours says ("~": the words are Python's or torch's own); and where
# PyTorch's own way is not to refuse and change nothing, what it does: "changes" (something before
# it fails) or "accepts". A fourth entry says that ours changes something too.
BAD: dict[str, list[tuple[str, ...]]] = {
    "building": [
        ("SGD(p[0])", "params must be an iterable of tensors, not"),
        ("SGD(None)", "params must be an iterable of tensors, not"),
        ("SGD([])", "there is nothing to optimize: the list of"),
        ("SGD(iter([]))", "there is nothing to optimize: the list of"),
        ("SGD({'params': p})", "an optimizer can only optimize tensors, not"),
        ("SGD([{}])", "a parameter group needs 'params', and has []\""),
        ("SGD([{'params': 3}])", "params must be a list: state is saved by"),
        ("SGD([{'params': {p[0], p[1]}}])", "params must be a list"),
        ("SGD([1.0])", "an optimizer can only optimize tensors, not"),
        ("SGD([p[0], 'weight'])", "an optimizer can only optimize tensors, not"),
        ("SGD([p[0], {'params': [p[1]]}])", "an optimizer can only optimize tensors, not"),
        ("SGD([{'params': [p[0]]}, p[1]])", "a parameter group is a dict, not"),
        ("SGD([p[0] * 2])", "can't optimize a tensor computed from others:"),
        (
            "Adam([{'params': [p[0]]}, {'params': [p[1] + 1]}])",
            "can't optimize a tensor computed from others:",
        ),
        (
            "SGD([{'params': [p[0]]}, {'params': [p[1], p[0]]}])",
            "a parameter of this group is already in",
        ),
        ("SGD([('a', p[0]), p[1]])", "either all parameters of a group have names or"),
        ("SGD([p[0], ('a', p[1])])", "either all parameters of a group have names or"),
        ("SGD([('a',)])", "~"),
        ("SGD([('a', 1.0)])", "an optimizer can only optimize tensors, not"),
        (
            "SGD([{'params': [('a', p[0])]}, {'params': [p[1]]}])",
            "either all parameter groups have names or none",
        ),
        (
            "SGD([{'params': [p[0]]}, {'params': [('a', p[1])]}])",
            "either all parameter groups have names or none",
        ),
        ("SGD(p, lr=-0.1)", "lr must not be negative, got -0.1"),
        ("SGD(p, lr=None)", "lr must be a number, not None"),
        ("SGD(p, lr='fast')", "lr must be a number, not 'fast'"),
        ("SGD(p, lr=1j)", "lr must be a number, not 1j"),
        ("SGD(p, lr=tensor([0.1, 0.2]))", "lr must be one number, and not 2 in a tensor"),
        ("SGD(p, lr=tensor([]))", "lr must be one number, and not 0 in a tensor"),
        ("SGD(p, lr=tensor(-0.1))", "lr must not be negative, got"),
        ("SGD(p, momentum=-0.5)", "momentum must not be negative, got -0.5"),
        ("SGD(p, momentum=None)", "momentum must be a number, not None"),
        ("SGD(p, momentum=tensor([0.9, 0.9]))", "momentum must be one number, and not 2 in a"),
        (
            "SGD(p, weight_decay=tensor([0.1, 0.1]))",
            "weight_decay must be one number, and not 2 in",
        ),
        ("SGD(p, weight_decay=-1)", "weight_decay must not be negative, got -1"),
        ("SGD(p, weight_decay='much')", "weight_decay must be a number, not 'much'"),
        ("SGD(p, nesterov=True)", "nesterov needs momentum above 0 and dampening"),
        ("SGD(p, nesterov=True, momentum=0)", "nesterov needs momentum above 0 and dampening"),
        (
            "SGD(p, nesterov=True, momentum=0.9, dampening=0.1)",
            "nesterov needs momentum above 0 and dampening",
        ),
        ("Adam(p, lr=-1e-3)", "lr must not be negative or nan, got -0.001"),
        ("Adam(p, lr=nan)", "lr must not be negative or nan, got nan"),
        ("Adam(p, lr=None)", "lr must be a number, not None"),
        ("Adam(p, lr=tensor([0.1, 0.2]))", "lr must be one number, and not 2 in a tensor"),
        ("Adam(p, lr=tensor(0.1), foreach=True)", "lr cannot be a tensor with foreach=True: leave"),
        ("Adam(p, eps=-1e-8)", "eps must not be negative or nan, got -1e-08"),
        ("Adam(p, eps=None)", "eps must be a number, not None"),
        ("Adam(p, eps=tensor([1e-8, 1e-8]))", "eps must be one number, and not 2 in a tensor"),
        ("Adam(p, weight_decay='much')", "weight_decay must be a number, not 'much'"),
        ("Adam(p, weight_decay=-0.1)", "weight_decay must not be negative or nan, got"),
        ("Adam(p, weight_decay=nan)", "weight_decay must not be negative or nan, got"),
        ("Adam(p, betas=(1.0, 0.999))", "both betas must be at least 0 and below 1, got"),
        ("Adam(p, betas=(0.9, 1.0))", "both betas must be at least 0 and below 1, got"),
        ("Adam(p, betas=(-0.1, 0.999))", "both betas must be at least 0 and below 1, got"),
        ("Adam(p, betas=(nan, 0.999))", "both betas must be at least 0 and below 1, got"),
        ("Adam(p, betas=(0, 0))", "betas must be two floats or two tensors"),
        ("Adam(p, betas=(0, 0.999))", "betas must be two floats or two tensors"),
        ("Adam(p, betas=(0.9, tensor(0.999)))", "betas must be two floats or two tensors"),
        ("Adam(p, betas=(tensor(0.9), 0.999))", "betas must be two floats or two tensors"),
        (
            "Adam(p, betas=(tensor([0.9, 0.8]), tensor(0.999)))",
            "beta1 must be one number, and not 2 in a",
        ),
        (
            "Adam(p, betas=(tensor(0.9), tensor([0.99, 0.9])))",
            "beta2 must be one number, and not 2 in a",
        ),
        (
            "Adam(p, betas=(tensor(0.9), tensor(0.99)), foreach=True)",
            "beta1 cannot be a tensor with foreach=True:",
        ),
        ("Adam(p, betas=0.9)", "betas must be two floats or two tensors, not"),
        ("Adam(p, betas=(0.9,))", "~"),
        ("Adam(p, betas=None)", "betas must be two floats or two tensors, not"),
        ("Adam(p, betas=('a', 'b'))", "beta1 must be a number, not 'a'"),
        ("AdamW(p, betas=(0.9, 1.5))", "both betas must be at least 0 and below 1, got"),
        ("AdamW(p, weight_decay=-0.1)", "weight_decay must not be negative or nan, got"),
        ("SGD(p, 0.1, 0.9, 0, 0, False, True)", "~"),
        ("SGD(p, learning_rate=0.1)", "~"),
        ("SGD(p, capturable=False)", "~"),
        ("Adam(p, 0.1, (0.9, 0.999), 1e-8, 0, False, True)", "~"),
        ("Adam(p, momentum=0.9)", "~"),
        ("AdamW(p, decoupled_weight_decay=True)", "~"),
        ("SGD()", "~"),
        ("Adam()", "~"),
        ("Optimizer(p)", "~"),
        ("SGD(p, lr=-inf)", "lr must not be negative, got -inf"),
        ("SGD(p, momentum='heavy')", "momentum must be a number, not 'heavy'"),
        ("SGD(p, momentum=[0.9])", "momentum must be a number, not [0.9]"),
        ("SGD(p, nesterov=True, momentum=-0.5)", "momentum must not be negative, got -0.5"),
        ("SGD(p, lr=[0.1])", "lr must be a number, not [0.1]"),
        ("SGD(p, lr=-0.0001, momentum=0.9)", "lr must not be negative, got -0.0001"),
        ("SGD(p, weight_decay=None)", "weight_decay must be a number, not None"),
        ("Adam(p, lr='fast')", "lr must be a number, not 'fast'"),
        ("Adam(p, lr=tensor(-0.1))", "lr must not be negative or nan, got"),
        ("Adam(p, lr=tensor(nan))", "lr must not be negative or nan, got nan"),
        ("Adam(p, eps=nan)", "eps must not be negative or nan, got nan"),
        ("Adam(p, lr=-inf)", "lr must not be negative or nan, got -inf"),
        ("Adam(p, betas=(0.9, nan))", "both betas must be at least 0 and below 1, got"),
        ("Adam(p, betas=(inf, 0.999))", "both betas must be at least 0 and below 1, got"),
        ("Adam(p, betas=(None, 0.9))", "beta1 must be a number, not None"),
        ("Adam(p, betas=(0.9, 'b'))", "beta2 must be a number, not 'b'"),
        ("Adam(p, betas=[])", "~"),
        ("Adam(p, betas=(0.9, 0.99, 0.999))", "betas must be two floats or two tensors", "accepts"),
        ("Adam(p, betas={0.9, 0.99})", "betas must be two floats or two tensors, not"),
        ("Adam(p, betas=tensor(0.9))", "invalid index of a 0-dim tensor. Use"),
        ("Adam(p, weight_decay=None)", "weight_decay must be a number, not None"),
        ("AdamW(p, weight_decay=nan)", "weight_decay must not be negative or nan, got"),
        ("AdamW(p, lr=nan)", "lr must not be negative or nan, got nan"),
        ("AdamW(p, eps=-1)", "eps must not be negative or nan, got -1"),
        ("AdamW([])", "there is nothing to optimize: the list of"),
        ("AdamW(p[0])", "params must be an iterable of tensors, not"),
        (
            "Adam([{'params': p, 'lr': 0.1}, {'lr': 0.2}])",
            "a parameter group needs 'params', and has",
        ),
        ("SGD([{'params': None}])", "params must be a list: state is saved by"),
        ("SGD([None])", "an optimizer can only optimize tensors, not"),
        ("SGD('weights')", "an optimizer can only optimize tensors, not"),
        ("SGD(3)", "params must be an iterable of tensors, not int"),
        ("SGD(model)", "params must be an iterable of tensors, not"),
        ("SGD([[p[0]], [p[1]]])", "an optimizer can only optimize tensors, not"),
        ("SGD([p])", "an optimizer can only optimize tensors, not"),
        ("SGD([p[0].detach() * 1, p[1] * 2])", "can't optimize a tensor computed from others:"),
        ("SGD(p, closure=None)", "~"),
        ("SGD(p, lr=0.1, momentum=0.9, lr2=1)", "~"),
    ],
    "groups": [
        (
            "ONE; group = [p[2]]; o.add_param_group(group)",
            "a parameter group is a dict, not list",
        ),
        (
            "ONE; group = p[2]; o.add_param_group(group)",
            "a parameter group is a dict, not",
        ),
        (
            "ONE; group = None; o.add_param_group(group)",
            "a parameter group is a dict, not NoneType",
        ),
        (
            "ONE; group = {}; o.add_param_group(group)",
            "a parameter group needs 'params', and has []\"",
        ),
        (
            "ONE; group = {'params': [3]}; o.add_param_group(group)",
            "an optimizer can only optimize tensors, not",
        ),
        (
            "ONE; group = {'params': None}; o.add_param_group(group)",
            "params must be a list: state is saved by",
        ),
        (
            "ONE; group = {'params': {p[2]}}; o.add_param_group(group)",
            "params must be a list",
        ),
        (
            "ONE; group = {'params': [p[2] * 1]}; o.add_param_group(group)",
            "can't optimize a tensor computed from others:",
        ),
        (
            "ONE; group = {'params': [p[2], p[0]]}; o.add_param_group(group)",
            "a parameter of this group is already in",
            "changes",
        ),
        (
            "ONE; group = {'params': [('c', p[2])]}; o.add_param_group(group)",
            "either all parameter groups have names or none",
            "changes",
        ),
        (
            "ONE; group = {'params': [p[2], ('d', p[3])]}; o.add_param_group(group)",
            "either all parameters of a group have names or",
            "changes",
        ),
        (
            "ONE; group = {'params': p[0]}; o.add_param_group(group)",
            "a parameter of this group is already in",
            "changes",
        ),
        (
            "ONE; group = {'lr': 0.1}; o.add_param_group(group)",
            "a parameter group needs 'params', and has",
        ),
        (
            "ONE; group = {'params': [p[2]], 'param_names': ['c']}; o.add_param_group(group)",
            "either all parameter groups have names or none",
            "changes",
        ),
        (
            "ONE; group = {'params': 'weights'}; o.add_param_group(group)",
            "an optimizer can only optimize tensors, not",
            "changes",
        ),
        (
            "o = SGD([('a', p[0])]); o.add_param_group({'params': [p[1]]})",
            "either all parameter groups have names or none",
        ),
        ("o = SGD(p[:1]); o.add_param_group()", "~"),
        ("o = SGD(p[:1]); o.add_param_group({'params': [p[1]]}, 3)", "~"),
    ],
    "stepping": [
        (
            "ADAM; p[2].grad = p[2].grad.to_sparse(); o.step()",
            "Adam needs dense gradients: use SGD, or",
            "changes",
        ),
        (
            "ADAMW; p[2].grad = p[2].grad.to_sparse(); o.step()",
            "Adam needs dense gradients: use SGD, or",
            "changes",
        ),
        (
            "FOREACH; o.param_groups[1]['lr'] = tensor(0.1); o.step()",
            "lr cannot be a tensor with foreach=True: leave",
            "changes",
        ),
        (
            "FOREACH; o.param_groups[1]['betas'] = (tensor(0.9), tensor(0.99)); o.step()",
            "beta1 cannot be a tensor with foreach=True:",
            "changes",
        ),
        ("ADAM; o.param_groups[1]['betas'] = (0.9, 0.99, 0.999); o.step()", "~", "changes"),
        ("ADAM; o.param_groups[1]['betas'] = (0.9,); o.step()", "~", "changes"),
        ("ADAM; o.param_groups[1]['betas'] = None; o.step()", "~", "changes"),
        ("ADAM; o.param_groups[1]['betas'] = 'high'; o.step()", "~", "changes"),
        (
            "ADAM; o.param_groups[1]['lr'] = None; o.step()",
            "lr must be a number, not None",
            "changes",
        ),
        (
            "ADAM; o.param_groups[1]['lr'] = 'fast'; o.step()",
            "lr must be a number, not 'fast'",
            "changes",
        ),
        (
            "ADAM; o.param_groups[1]['eps'] = None; o.step()",
            "eps must be a number, not None",
            "changes",
        ),
        (
            "ADAM; o.param_groups[1]['lr'] = tensor([0.1, 0.2]); o.step()",
            "lr must be one number, and not 2 in a tensor",
            "changes",
        ),
        (
            "ADAM; o.param_groups[1]['weight_decay'] = 'much'; o.step()",
            "weight_decay must be a number, not 'much'",
            "changes",
        ),
        ("ADAM; del o.param_groups[1]['betas']; o.step()", "~", "changes"),
        ("ADAM; del o.param_groups[1]['lr']; o.step()", "~", "changes"),
        ("ADAM; del o.param_groups[1]['params']; o.step()", "~", "changes"),
        ("ADAM; o.param_groups[1]['params'] = None; o.step()", "~", "changes"),
        ("ADAM; o.param_groups[1]['params'] = [3]; o.step()", "~", "changes"),
        (
            "ADAM; o.param_groups[1]['amsgrad'] = True; o.step()",
            "['max_exp_avg_sq']: not in the state, which",
            "changes",
        ),
        (
            "ADAM; del o.state[p[2]]['exp_avg']; o.step()",
            "['exp_avg']: not in the state, which was made",
            "changes",
        ),
        (
            "ADAM; del o.state[p[2]]['step']; o.step()",
            "['step']: not in the state, which was made",
            "changes",
        ),
        ("ADAM; o.state[p[2]]['exp_avg'] = torch.zeros(3); o.step()", "~", "changes", "changes"),
        ("ADAM; o.state[p[2]]['exp_avg_sq'] = None; o.step()", "~", "changes", "changes"),
        (
            "FOREACH; o.param_groups[1]['differentiable'] = True; o.step()",
            "foreach=True cannot be differentiable: leave",
            "changes",
        ),
        (
            "DECAY; p[2].grad = p[2].grad.to_sparse(); o.step()",
            "~",
            "changes",
            "changes",
        ),
        (
            "SGD; o.param_groups[1]['lr'] = None; o.step()",
            "lr must be a number, not None",
            "changes",
        ),
        (
            "SGD; o.param_groups[1]['lr'] = 'fast'; o.step()",
            "lr must be a number, not 'fast'",
            "changes",
        ),
        (
            "SGD; o.param_groups[1]['lr'] = tensor([0.1, 0.2]); o.step()",
            "lr must be one number, and not 2 in a tensor",
            "changes",
        ),
        (
            "SGD; o.param_groups[1]['momentum'] = 'heavy'; o.step()",
            "momentum must be a number, not 'heavy'",
            "changes",
        ),
        ("SGD; del o.param_groups[1]['momentum']; o.step()", "~", "changes"),
        ("SGD; del o.param_groups[1]['weight_decay']; o.step()", "~", "changes"),
        ("SGD; o.param_groups = None; o.step()", "~"),
        (
            "SGD; o.state[p[2]]['momentum_buffer'] = torch.zeros(3); o.step()",
            "~",
            "changes",
            "changes",
        ),
        ("SGD; o.state[p[2]]['momentum_buffer'] = 'heavy'; o.step()", "~", "changes", "changes"),
        ("SGD; o.step(lambda: 1 / 0)", "~"),
        ("SGD; o.step(3)", "~"),
        ("SGD; o.step(loss=3)", "~"),
        ("SGD; o.zero_grad(True, False)", "~"),
        ("o = SGD(p, differentiable=True); o.step()", "~"),
        ("o = Adam(p, differentiable=True); o.step()", "~", "changes", "changes"),
        (
            "o = SGD(p); handle = o.register_step_pre_hook(lambda *args: 3); o.step()",
            "a pre-hook returns None or (args, kwargs), not",
        ),
        ("o = SGD(p); handle = o.register_step_pre_hook(lambda *args: 1 / 0); o.step()", "~"),
        ("o = SGD(p); handle = o.register_step_pre_hook(3); o.step()", "~"),
        ("o = Optimizer(p, {}); o.step()", "Optimizer needs scalars and rule, or its own"),
    ],
    "loading": [
        ("SAVED; o.load_state_dict({})", "~"),
        ("SAVED; o.load_state_dict(None)", "~"),
        ("SAVED; o.load_state_dict([1])", "~"),
        ("SAVED; o.load_state_dict('adam')", "~"),
        ("SAVED; o.load_state_dict()", "~"),
        ("SAVED; o.load_state_dict({'state': {}})", "~"),
        (
            "SAVED; o.load_state_dict({'state': {}, 'param_groups': []})",
            "the saved groups hold [] parameters and this",
        ),
        ("SAVED; o.load_state_dict({'state': {}, 'param_groups': None})", "~"),
        ("SAVED; o.load_state_dict({'param_groups': saved['param_groups']})", "~"),
        (
            "SAVED; saved['param_groups'] *= 2; o.load_state_dict(saved)",
            "the saved groups hold [2, 2] parameters and",
        ),
        (
            "SAVED; saved['param_groups'][0]['params'] = [0]; o.load_state_dict(saved)",
            "the saved groups hold [1] parameters and this",
        ),
        (
            "SAVED; saved['param_groups'][0]['params'] = [0, 1, 2]; o.load_state_dict(saved)",
            "the saved groups hold [3] parameters and this",
        ),
        ("SAVED; saved['param_groups'][0]['params'] = None; o.load_state_dict(saved)", "~"),
        ("SAVED; del saved['param_groups'][0]['params']; o.load_state_dict(saved)", "~"),
        ("SAVED; saved['param_groups'] = [3]; o.load_state_dict(saved)", "~"),
        ("SAVED; saved['state'] = None; o.load_state_dict(saved)", "~"),
        ("SAVED; saved['state'] = [3]; o.load_state_dict(saved)", "~"),
        (
            "SAVED; saved['state'][0]['step'] = 'three'; o.load_state_dict(saved)",
            "~",
            "changes",
            "changes",
        ),
        ("SAVED; o.load_state_dict(model.state_dict())", "~"),
        ("SAVED; o.load_state_dict(o)", "~"),
        (
            "SAVED; h = o.register_load_state_dict_pre_hook(lambda *x: 3); o.load_state_dict(saved)",  # noqa: E501
            "~",
        ),
        (
            "SAVED; o.param_groups[0]['params'].pop(); o.state_dict()",
            "~",
        ),
        (
            "SAVED; o = Adam([{'params': p[:1]}, {'params': p[1:2]}]); o.load_state_dict(saved)",
            "the saved groups hold [2] parameters and this",
        ),
        ("saved = StepLR(o, 3).state_dict(); o.load_state_dict(saved)", "~"),
    ],
    "schedules": [
        ("LRScheduler(o)", "LRScheduler must define next_lrs or get_lr", "changes", "changes"),
        ("StepLR(model, 10)", "expected an optimizer, not"),
        ("StepLR(type('Half', (), {'param_groups': []})(), 10)", "expected an optimizer, not"),
        ("StepLR(o)", "~"),
        ("StepLR(o, 10, 0.1, -1, 'too many')", "~"),
        ("StepLR(o, size=3)", "~"),
        (
            "StepLR(o, 10, last_epoch=4)",
            "last_epoch needs initial_lr in group 0 (better: use load_state_dict), not ['damp",
        ),
        ("ExponentialLR(o, 0.9, last_epoch=0)", "last_epoch needs initial_lr in group 0"),
        ("MultiStepLR(o, 30)", "milestones must be a list of steps, not 30"),
        ("MultiStepLR(o, 2.5)", "milestones must be a list of steps, not 2.5"),
        ("MultiStepLR(model, [3])", "expected an optimizer, not"),
        ("ConstantLR(o, factor=1.1)", "factor must be in [0, 1], not 1.1"),
        ("ConstantLR(o, factor=-0.1)", "factor must be in [0, 1], not -0.1"),
        ("ConstantLR(o, factor='half')", "factor must be a number, not 'half'"),
        ("LinearLR(o, start_factor=0)", "start_factor must be in (0, 1], not 0"),
        ("LinearLR(o, start_factor=1.5)", "start_factor must be in (0, 1], not 1.5"),
        ("LinearLR(o, end_factor=-0.5)", "end_factor must be in [0, 1], not -0.5"),
        ("LinearLR(o, end_factor=2)", "end_factor must be in [0, 1], not 2"),
        ("LinearLR(o, start_factor=None)", "start_factor must be a number, not None"),
        ("LinearLR(o, end_factor=None)", "end_factor must be a number, not None"),
        ("LambdaLR(o, 0.5)", "lr_lambda must be a function of the step, not", "changes"),
        ("LambdaLR(o, [lambda t: 1.0])", "lr_lambda must be one value, or one per group,"),
        ("LambdaLR(o, [lambda t: 1.0] * 3)", "lr_lambda must be one value, or one per group,"),
        (
            "LambdaLR(o, [lambda t: 1.0, 0.5])",
            "lr_lambda must be a function of the step, not",
            "changes",
        ),
        ("LambdaLR(model, lambda t: 1.0)", "~"),
        ("LambdaLR(o, lambda t: 1 / t)", "~", "changes", "changes"),
        ("MultiplicativeLR(o, 0.5)", "lr_lambda must be a function of the step, not"),
        ("MultiplicativeLR(o, [lambda t: 1.0])", "lr_lambda must be one value, or one per group,"),
        (
            "MultiplicativeLR(o, [lambda t: 1.0, None])",
            "lr_lambda must be a function of the step, not",
        ),
        ("CosineAnnealingWarmRestarts(o, 0)", "T_0 must be an int greater than 0, not 0"),
        ("CosineAnnealingWarmRestarts(o, -3)", "T_0 must be an int greater than 0, not -3"),
        ("CosineAnnealingWarmRestarts(o, 2.5)", "T_0 must be an int greater than 0, not 2.5"),
        ("CosineAnnealingWarmRestarts(o, 'ten')", "T_0 must be a number, not 'ten'"),
        (
            "CosineAnnealingWarmRestarts(o, 5, T_mult=0)",
            "T_mult must be an int greater than 0, not 0",
        ),
        (
            "CosineAnnealingWarmRestarts(o, 5, T_mult=1.5)",
            "T_mult must be an int greater than 0, not 1.5",
        ),
        (
            "CosineAnnealingWarmRestarts(o, 5, eta_min='small')",
            "eta_min must be a number, not 'small'",
        ),
        (
            "CosineAnnealingWarmRestarts(o, 5, eta_min=torch.tensor(0.1))",
            "eta_min must be a number, not",
        ),
        ("CyclicLR(model, 0.1, 1.0)", "expected an optimizer, not"),
        (
            "CyclicLR(o, 0.1, 1.0, mode='square')",
            "without a scale_fn, mode must be one of",
            "changes",
        ),
        ("CyclicLR(o, 0.1, 1.0, mode=[])", "without a scale_fn, mode must be one of", "changes"),
        ("CyclicLR(o, 0.1, 1.0, mode=None)", "without a scale_fn, mode must be one of", "changes"),
        ("CyclicLR(o, [0.1], 1.0)", "base_lr must be one value, or one per group,"),
        (
            "CyclicLR(o, 0.1, [1.0, 1.0, 1.0])",
            "max_lr must be one value, or one per group,",
            "changes",
        ),
        (
            "CyclicLR(o, 0.1, 1.0, base_momentum=[0.8])",
            "base_momentum must be one value, or one per",
            "changes",
        ),
        (
            "CyclicLR(o, 0.1, 1.0, max_momentum=[0.8])",
            "max_momentum must be one value, or one per",
            "changes",
        ),
        (
            "CyclicLR(o, 0.1, 1.0, step_size_up=0)",
            "step_size_up must be at least 1, not 0",
            "changes",
        ),
        (
            "CyclicLR(o, 0.1, 1.0, step_size_up=0, step_size_down=5)",
            "step_size_up must be at least 1, not 0",
            "changes",
        ),
        ("CyclicLR(o, 0.1, 1.0, step_size_up='long')", "~", "changes"),
        ("CyclicLR(o, 0.1, 1.0, step_size_up=None)", "~", "changes"),
        ("CyclicLR(o, 0.1, 1.0, scale_fn=3)", "~", "changes", "changes"),
        (
            "CyclicLR(without_momentum, 0.1, 1.0)",
            "cycle_momentum=True needs an option momentum or betas, not ['lr', ",
            "changes",
        ),
        ("OneCycleLR(model, 1.0, 10)", "expected an optimizer, not"),
        ("OneCycleLR(o, 1.0)", "give total_steps, or epochs and"),
        ("OneCycleLR(o, 1.0, epochs=3)", "give total_steps, or epochs and"),
        ("OneCycleLR(o, 1.0, steps_per_epoch=3)", "give total_steps, or epochs and"),
        ("OneCycleLR(o, 1.0, epochs=0, steps_per_epoch=3)", "give total_steps, or epochs and"),
        ("OneCycleLR(o, 1.0, epochs=3, steps_per_epoch=2.5)", "give total_steps, or epochs and"),
        (
            "OneCycleLR(o, 1.0, epochs='three', steps_per_epoch=3)",
            "give total_steps, or epochs and",
        ),
        ("OneCycleLR(o, 1.0, total_steps=0)", "total_steps must be an int greater than 0, not"),
        ("OneCycleLR(o, 1.0, total_steps=10.0)", "total_steps must be an int greater than 0, not"),
        ("OneCycleLR(o, 1.0, total_steps='ten')", "total_steps must be a number, not 'ten'"),
        ("OneCycleLR(o, 1.0, 10, pct_start=1)", "pct_start must be a float in [0, 1], not 1"),
        ("OneCycleLR(o, 1.0, 10, pct_start=-0.1)", "pct_start must be a float in [0, 1], not -0.1"),
        ("OneCycleLR(o, 1.0, 10, pct_start=1.1)", "pct_start must be a float in [0, 1], not 1.1"),
        ("OneCycleLR(o, 1.0, 10, pct_start=None)", "~"),
        ("OneCycleLR(o, 1.0, 10, pct_start='30 %')", "~"),
        (
            "OneCycleLR(o, 1.0, 10, pct_start=0.1)",
            "pct_start * total_steps must differ from 1,",
            "changes",
        ),
        (
            "OneCycleLR(o, 1.0, 10, anneal_strategy='exp')",
            "choose one of ['cos', 'linear'], not 'exp'",
        ),
        (
            "OneCycleLR(o, 1.0, 10, anneal_strategy=None)",
            "choose one of ['cos', 'linear'], not None",
        ),
        ("OneCycleLR(o, [1.0], 10)", "max_lr must be one value, or one per group,"),
        (
            "OneCycleLR(o, 1.0, 10, max_momentum=[0.9])",
            "max_momentum must be one value, or one per",
            "changes",
        ),
        ("OneCycleLR(o, 1.0, 10, div_factor=0)", "~"),
        ("OneCycleLR(o, 1.0, 10, final_div_factor=0)", "~", "changes"),
        (
            "OneCycleLR(without_momentum, 1.0, 10)",
            "cycle_momentum=True needs an option momentum",
            "changes",
        ),
        ("OneCycleLR(o, 1.0, 10, last_epoch=2)", "last_epoch needs initial_lr in group 0"),
        ("ReduceLROnPlateau(model)", "expected an optimizer, not"),
        ("ReduceLROnPlateau(o, factor=1.0)", "factor must be less than 1, not 1.0"),
        ("ReduceLROnPlateau(o, factor='tenth')", "factor must be a number, not 'tenth'"),
        ("ReduceLROnPlateau(o, mode='least')", "a mode must be one of ['min', 'max'], not"),
        ("ReduceLROnPlateau(o, mode=None)", "a mode must be one of ['min', 'max'], not None"),
        (
            "ReduceLROnPlateau(o, threshold_mode='percent')",
            "a mode must be one of ['rel', 'abs'], not",
        ),
        ("ReduceLROnPlateau(o, threshold_mode=3)", "a mode must be one of ['rel', 'abs'], not 3"),
        ("ReduceLROnPlateau(o, min_lr=[0.1])", "min_lr must be one value, or one per group,"),
        ("SequentialLR(o, [], [])", "expected at least one scheduler, not []"),
        ("a = StepLR(o, 3); SequentialLR(o, [a], [3])", "expected 0 milestones, one before each"),
        (
            "a = StepLR(o, 3); b = StepLR(o, 5); SequentialLR(o, [a, b], [])",
            "expected 1 milestones, one before each",
        ),
        ("a = StepLR(o, 3); SequentialLR(o, [a, o], [3])", "expected a scheduler, not"),
        (
            "a = StepLR(o, 3); b = ReduceLROnPlateau(o); SequentialLR(o, [a, b], [3])",
            "expected one whose step() needs no metric, not",
        ),
        ("a = StepLR(other, 3); SequentialLR(o, [a], [])", "expected one optimizer for all, not"),
        ("a = StepLR(o, 3); SequentialLR(None, [a], [])", "expected one optimizer for all, not"),
        ("a = StepLR(o, 3); SequentialLR(o, a, [])", "~"),
        ("a = StepLR(o, 3); b = StepLR(o, 5); SequentialLR(o, [a, b], 3)", "~"),
        ("ChainedScheduler([])", "expected at least one scheduler, not []"),
        ("ChainedScheduler(())", "expected at least one scheduler, not ()"),
        ("ChainedScheduler([o])", "~"),
        ("ChainedScheduler([o], optimizer=o)", "expected a scheduler, not"),
        (
            "a = StepLR(o, 3); b = StepLR(other, 3); ChainedScheduler([a, b])",
            "expected one optimizer for all, not",
        ),
        (
            "a = StepLR(o, 3); ChainedScheduler([a], optimizer=other)",
            "expected one optimizer for all, not",
        ),
        (
            "a = ReduceLROnPlateau(o); ChainedScheduler([a])",
            "expected one whose step() needs no metric, not",
        ),
        ("a = StepLR(o, 3); ChainedScheduler(a)", "~"),
    ],
    "schedule steps": [
        ("s = StepLR(o, 0); o.step(); s.step()", "in step 1 of StepLR", "changes"),
        ("s = StepLR(o, None); o.step(); s.step()", "in step 1 of StepLR", "changes"),
        ("s = StepLR(o, 1, gamma=None); o.step(); s.step()", "in step 1 of StepLR", "changes"),
        (
            "s = ExponentialLR(o, '0.9'); o.step(); s.step()",
            "in step 1 of ExponentialLR",
            "changes",
        ),
        (
            "s = CosineAnnealingLR(o, 0); o.step(); s.step()",
            "in step 1 of CosineAnnealingLR",
            "changes",
        ),
        (
            "s = CosineAnnealingLR(o, 'ten'); o.step(); s.step()",
            "in step 1 of CosineAnnealingLR",
            "changes",
        ),
        (
            "s = ConstantLR(o, 0.0, total_iters=2); o.step(); s.step(); s.step()",
            "in step 2 of ConstantLR",
            "changes",
        ),
        (
            "s = PolynomialLR(o, total_iters=None); o.step(); s.step()",
            "in step 1 of PolynomialLR",
            "changes",
        ),
        (
            "s = LambdaLR(o, lambda t: 1 / (t - 2)); o.step(); s.step(); s.step()",
            "in step 2 of LambdaLR",
            "changes",
        ),
        (
            "s = MultiplicativeLR(o, lambda t: 1 / (t - 2)); o.step(); s.step(); s.step()",
            "in step 2 of MultiplicativeLR",
            "changes",
        ),
        (
            "s = OneCycleLR(o, 1.0, 3); o.step(); s.step(); s.step(); s.step(); s.step()",
            "step at most total_steps=3 times, not 4",
            "changes",
        ),
        (
            "s = OneCycleLR(o, 1.0, 3, pct_start=1.0); o.step(); s.step(); s.step(); s.step()",
            "in step 3 of OneCycleLR",
            "changes",
        ),
        ("s = ReduceLROnPlateau(o); o.step(); s.step()", "~"),
        (
            "s = SequentialLR(o, [StepLR(o, 3), ChainedScheduler([StepLR(o, 3)])], [2]); ONCE; s.step()",  # noqa: E501
            "ChainedScheduler must define next_lrs or",
            "changes",
            "changes",
        ),
        (
            "s = SequentialLR(o, [StepLR(o, 3), SequentialLR(o, [StepLR(o, 3)], [])], [2]); ONCE; s.step()",  # noqa: E501
            "SequentialLR must define next_lrs or get_lr",
            "changes",
            "changes",
        ),
        ("s = StepLR(o, 3); o.step(); s.step('two')", "in step two of StepLR", "changes"),
        ("s = StepLR(o, 3); s.step(1, 2)", "~"),
        ("s = ReduceLROnPlateau(o); s.step('low')", "~"),
        ("s = ReduceLROnPlateau(o); s.step(None)", "~"),
        ("s = ReduceLROnPlateau(o); s.step(tensor([1.0, 2.0]))", "~"),
        ("s = CosineAnnealingWarmRestarts(o, 3); s.step(-1)", "epoch must not be negative, not -1"),
        (
            "s = CosineAnnealingWarmRestarts(o, 3, T_mult=2); s.step(-1)",
            "epoch must not be negative, not -1",
        ),
        ("s = CosineAnnealingWarmRestarts(o, 3); s.step('two')", "~"),
        ("s = SequentialLR(o, [StepLR(o, 3)], []); s.step(3)", "~"),
        ("s = ChainedScheduler([StepLR(o, 3)]); s.step(3)", "~"),
        (
            "s = LambdaLR(o, lambda t: None if t else 1.0); o.step(); s.step()",
            "in step 1 of LambdaLR",
            "changes",
        ),
        (
            "s = LambdaLR(o, lambda t: 'slow' if t else 1.0); o.step(); s.step()",
            "in step 1 of LambdaLR",
            "changes",
        ),
        (
            "s = StepLR(o, 3); o.step(); del o.param_groups[1]['lr']; s.step()",
            "in step 1 of StepLR",
            "changes",
        ),
        (
            "s = LambdaLR(o, lambda t: 1.0); LATE; s.step()",
            "[0.1, 0.03] has no rate for a group that was",
            "changes",
        ),
        (
            "x = iter([1.0] * 7 + [0.0]); s = CyclicLR(o, 0.1, 1, scale_fn=lambda t: 1 / next(x)); "
            "s.step()",
            "in step 1 of CyclicLR",
            "changes",
        ),
        (
            "s = OneCycleLR(o, 1.0, 10); LATE; s.step()",
            "in step 1 of OneCycleLR",
            "changes",
        ),
        (
            "s = ReduceLROnPlateau(o, patience=0, min_lr=[0.1, 0.1]); LATE; s.step(1.0); s.step(2.0)",  # noqa: E501
            "append to min_lrs when adding a group: it must",
            "changes",
            "changes",
        ),
        ("s = StepLR(o, 3); s.load_state_dict(None)", "~"),
        ("s = StepLR(o, 3); s.load_state_dict(3)", "~"),
        (
            "s = LambdaLR(o, lambda t: 1.0); FOREIGN; s.load_state_dict(saved)",
            "~",
        ),
        (
            "s = CyclicLR(o, 0.1, 1.0); FOREIGN; s.load_state_dict(saved)",
            "~",
        ),
        (
            "s = ChainedScheduler([StepLR(o, 3)]); FOREIGN; s.load_state_dict(saved)",
            "~",
        ),
        ("s = SequentialLR(o, [StepLR(o, 3)], []); s.load_state_dict(o.state_dict())", "~"),
    ],
}

# Neither library refuses these. The result is the same, nan for nan.
ACCEPTED = [
    "o = SGD(p, lr=nan); o.step()",
    "o = SGD(p, lr=inf, momentum=0.9); o.step(); o.step()",
    "o = SGD(p, lr=True); o.step()",
    "o = SGD(p, momentum=nan); o.step(); o.step()",
    "o = SGD(p, momentum=inf); o.step(); o.step()",
    "o = SGD(p, momentum=0.9, dampening=nan); o.step(); o.step()",
    "o = SGD(p, weight_decay=inf); o.step()",
    "o = SGD(p, weight_decay=nan); o.step()",
    "o = SGD(p, foreach=True, differentiable=True)",
    "o = SGD(p, foreach=3); o.step()",
    "o = SGD(p); o.param_groups[0]['lr'] = nan; o.step()",
    "o = SGD(p); o.param_groups[0]['lr'] = -0.1; o.step()",
    "o = Adam(p, lr=inf); o.step(); o.step()",
    "o = Adam(p, lr=0.0, eps=0.0); o.step()",
    "o = Adam(p, eps=inf); o.step()",
    "o = Adam(p, weight_decay=inf); o.step()",
    "o = AdamW(p, weight_decay=inf); o.step()",
    "o = Adam(p, betas=(0.0, 0.0)); o.step(); o.step()",
    "o = Adam(p); o.param_groups[0]['betas'] = (nan, 0.999); o.step()",
    "o = Adam(p); o.param_groups[0]['eps'] = -1.0; o.step()",
    "p[0].grad.fill_(nan); o = SGD(p, momentum=0.9); o.step(); o.step()",
    "p[0].grad.fill_(inf); o = SGD(p, momentum=0.9, nesterov=True); o.step(); o.step()",
    "p[0].grad[0, 0] = -inf; o = SGD(p, weight_decay=0.1, maximize=True); o.step()",
    "p[0].grad[1, 1] = nan; o = SGD(p, momentum=0.9, foreach=True); o.step(); o.step()",
    "p[0].grad.fill_(nan); o = Adam(p, amsgrad=True); o.step(); o.step()",
    "p[0].grad.fill_(inf); o = Adam(p); o.step(); p[0].grad.fill_(1.0); o.step()",
    "p[0].grad[0, 0] = -inf; o = AdamW(p, amsgrad=True); o.step(); o.step()",
    "p[0].grad[0, 0] = nan; o = Adam(p, foreach=True, amsgrad=True); o.step(); o.step()",
    "p[0].grad.fill_(0.0); o = Adam(p, eps=0.0); o.step()",
    "p[0].data.fill_(nan); o = Adam(p, weight_decay=0.1); o.step()",
    "p[0].data.fill_(inf); o = SGD(p, weight_decay=0.1, momentum=0.9); o.step(); o.step()",
    "s = StepLR(o, 3, gamma=nan); [(o.step(), s.step()) for _ in range(4)]",
    "s = StepLR(o, -3, gamma=0.5); [(o.step(), s.step()) for _ in range(4)]",
    "s = ExponentialLR(o, -1.0); [(o.step(), s.step()) for _ in range(4)]",
    "s = ExponentialLR(o, inf); [(o.step(), s.step()) for _ in range(4)]",
    "s = MultiStepLR(o, [2, -1, 2.5]); [(o.step(), s.step()) for _ in range(4)]",
    "s = CosineAnnealingLR(o, 3, eta_min=nan); [(o.step(), s.step()) for _ in range(4)]",
    "s = CosineAnnealingLR(o, -3); [(o.step(), s.step()) for _ in range(4)]",
    "s = LambdaLR(o, lambda t: nan); o.step(); s.step(); o.step()",
    "s = ReduceLROnPlateau(o, patience=0); [s.step(x) for x in (1.0, nan, nan, inf, -inf)]",
    "s = ReduceLROnPlateau(o, factor=-1.0, patience=0); [s.step(x) for x in (1.0, 2.0, 3.0)]",
    "s = ReduceLROnPlateau(o, factor=nan, patience=0); [s.step(x) for x in (1.0, 2.0, 3.0)]",
    "s = PolynomialLR(o, -3); o.step(); s.step(); o.step()",
    "s = SequentialLR(o, [StepLR(o, 3), StepLR(o, 2)], [-5]); o.step(); s.step()",
]


ROWS = [(kind, *row, "", "")[:5] for kind, rows in BAD.items() for row in rows]


@pytest.mark.parametrize(("kind", "line", "says", "theirs", "ours"), ROWS)
def test_a_bad_call(kind, line, says, theirs, ours):
    found, expected = (attempt(library, line) for library in LIBRARIES.values())
    assert way(expected) == theirs
    assert way(found) == ours
    if theirs != "accepts":
        assert found.error is expected.error
    assert found.says
    assert says.lstrip("~") in found.says


def way(outcome: Outcome) -> str:
    """What a library does: refuses (""), changes something before it does, or accepts."""
    if outcome.error is None:
        return "accepts"
    return "changes" if outcome.changed else ""


def test_the_table_is_long_and_in_our_words():
    assert len(ROWS) >= 300
    assert len({row[1] for row in ROWS}) == len(ROWS)
    assert sum(row[2] != "~" for row in ROWS) > 200
    assert sum(row[4] == "changes" for row in ROWS) <= 13


@pytest.mark.parametrize("line", ACCEPTED)
def test_what_neither_refuses_gives_the_same(line):
    assert accepted(line) is None


def test_the_comparison_sees_a_change():
    assert attempt(minioptim, "o = SGD(p); (p[0].data.add_(1), 1 / 0)").changed
    assert attempt(minioptim, "o = SGD(p); (p[1].grad.add_(1), 1 / 0)").changed
    assert attempt(minioptim, "o = SGD(p); (o.param_groups[0].update(lr=3), 1 / 0)").changed
    assert attempt(minioptim, "o = SGD(p); (o.state[p[0]].update(x=3), 1 / 0)").changed
    assert attempt(minioptim, "d = {'a': [1]}; (d['a'].append(2), 1 / 0)").changed
    assert attempt(minioptim, "s = StepLR(o, 3); (vars(s).update(last_epoch=7), 1 / 0)").changed
    assert attempt(minioptim, "o = SGD(p); 1 / 0").changed is None
    assert accepted("o = SGD(p, lr=0.1 + ('nesterov' in vars(o)) + len(o.__module__)); o.step()")


def test_what_is_not_supported_is_refused_everywhere():
    """PyTorch takes it, and gives a RuntimeError for bad mixtures, of which this is a kind."""
    p, option = names(minioptim)["p"], "capturable"
    with pytest.raises(NotImplementedError, match=f"{option}=True is not supported: leave it"):
        minioptim.Adam(p, **{option: True})
    with pytest.raises(NotImplementedError, match=option):
        minioptim.AdamW([{"params": p, option: True}])
    with pytest.raises(NotImplementedError, match=option):
        minioptim.AdamW(p, **{option: True})
    with pytest.raises(NotImplementedError, match=option):  # and not lr, which is a tensor
        minioptim.Adam(p, lr=torch.tensor(0.1), foreach=True, **{option: True})
    o = minioptim.Adam(p[:2], **{option: False})
    with pytest.raises(NotImplementedError, match=option):
        o.add_param_group({"params": p[2:], option: True})
    saved = torch.optim.Adam(p[:2], **{option: True}).state_dict()
    before = copy.deepcopy(o.state_dict())
    with pytest.raises(NotImplementedError, match=option):
        o.load_state_dict(saved)
    assert unlike(o.state_dict(), before) is None
    o.param_groups[0][option] = True
    weights = p[0].detach().clone()
    with pytest.raises(NotImplementedError, match=option):
        o.step()
    assert torch.equal(p[0], weights)


def test_one_tensor_of_two_betas_is_refused_for_foreach_by_name():
    p, betas = names(minioptim)["p"], (0.9, torch.tensor(0.999))
    for library, text in ((minioptim, "beta2 cannot be a tensor"), (torch.optim, "beta")):
        with pytest.raises(ValueError, match=text):
            library.Adam(p, betas=betas, foreach=True)
        o = library.Adam(p, foreach=True)
        o.param_groups[0]["betas"] = betas
        with pytest.raises(ValueError, match=text):
            o.step()
        assert not any(o.state.values()) or library is torch.optim


@pytest.mark.parametrize("case", ["Adam(p)", "AdamW(p)", "SGD(p, lr=0.1, momentum=0.9)"])
def test_a_cuda_graph_does_not_record_a_step_that_counts(case, monkeypatch):
    """It would repeat the bias correction of one step for ever. SGD does not count."""
    p = names(minioptim)["p"]
    for x in p:
        x.grad = torch.ones_like(x)
    o = build(minioptim, case, p)
    before = copy.deepcopy(([x.detach() for x in p], o.state_dict()))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    if "SGD" in case:
        o.step()
        assert not torch.equal(p[0], before[0][0])
    else:
        with pytest.raises(RuntimeError, match="CUDA graph cannot capture a step that counts"):
            o.step()
        assert unlike(([x.detach() for x in p], o.state_dict()), before) is None
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    o.step()


def test_an_optimizer_of_ones_own_has_the_same_checks():
    for line in ("SignDescent([])", "SignDescent([1.0])", "SignDescent([p[0] * 2])"):
        errors = []
        for library in LIBRARIES.values():
            with pytest.raises((TypeError, ValueError)) as caught:
                eval(line, {"SignDescent": sign_descent(library), "p": names(library)["p"]})
            errors.append(caught.type)
        assert errors[0] is errors[1]
