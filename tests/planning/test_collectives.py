"""Collectives in texts as the compilers for CPUs, GPUs and TPUs write them."""

import pytest

from senet_jax.planning.collectives import Collective, by_kind, read_collectives

CPU = """
ENTRY %main (p0: f32[4]) -> f32[4] {
  %ar = (f32[64]{0}, f32[3,3,8]{2,1,0}, /*index=2*/bf16[]) all-reduce(%a, %b, %c), to_apply=%add
  %cp = pred[7]{0} collective-permute(%z), source_target_pairs={{0,1}}
  %all-reduce.5 = f32[] all-reduce(%loss), to_apply=%add
  ROOT %fusion = f32[4]{0} fusion(%all-reduce.5, %ar), kind=kLoop, calls=%all-gather.1
}
"""

GPU = """
ENTRY %main (p0: f32[4]) -> f32[4] {
  %start = (f32[2,8]{1,0}, f32[16,8]{1,0}) all-gather-start(%x), channel_id=1, dimensions={0}
  %done = f32[16,8]{1,0} all-gather-done(%start)
  %rs = ((f32[80]{0}), f32[10]{0}) reduce-scatter-start(%y), channel_id=2, to_apply=%add
  %rsd = f32[10]{0} reduce-scatter-done(%rs)
  ROOT %ar = (bf16[8]{0}, bf16[3]{0}) all-reduce-start(%done, %rsd), channel_id=3, to_apply=%add
  %ard = (bf16[8]{0}, bf16[3]{0}) all-reduce-done(%ar)
}
"""

TPU = """
%fused_computation.1 (param_0: bf16[2,8]) -> (bf16[16,8], u32[]) {
  %all-gather.1 = bf16[16,8]{1,0:T(8,128)(2,1)} all-gather(%param_0), channel_id=5
  ROOT %custom-call = (bf16[16,8]{1,0}, u32[]{:S(2)}) custom-call(%all-gather.1)
}

%async_collective_fusion (param_0: bf16[2,8]) -> (f32[99], bf16[16,8]) {
  %convolution = f32[99]{0} convolution(%a, %b), window={size=1x1}
  %all-gather.2 = bf16[16,8]{1,0:T(8,128)(2,1)} all-gather(%param_0), channel_id=5
  ROOT %tuple = (f32[99]{0}, bf16[16,8]{1,0}) tuple(%convolution, %all-gather.2)
}

%all-reduce-scatter.3 (input: f32[16,4]) -> f32[2,4] {
  %all-reduce.7 = f32[16,4]{1,0:T(8,128)} all-reduce(%input), channel_id=6, to_apply=%add
  ROOT %dynamic-slice = f32[2,4]{1,0:T(8,128)} dynamic-slice(%all-reduce.7, %i)
}

ENTRY %main (p0: f32[4]) -> f32[4] {
  %s = (bf16[16,8]{1,0}, u32[]{:S(2)}) fusion(%p0), kind=kCustom, calls=%fused_computation.1
  %f = (f32[99]{0}, bf16[16,8]{1,0}) fusion(%s), kind=kOutput, calls=%async_collective_fusion
  ROOT %r = f32[2,4]{1,0} fusion(%f), kind=kCustom, calls=%all-reduce-scatter.3
}
"""


def test_an_operation_is_a_collective_and_a_name_is_not():
    assert by_kind(read_collectives(CPU)) == {
        "all-reduce": (2, 4 * (64 + 72) + 2 + 4),
        "collective-permute": (1, 7),
    }


def test_the_second_half_of_an_asynchronous_pair_counts():
    assert by_kind(read_collectives(GPU)) == {
        "all-gather": (1, 4 * 16 * 8),
        "reduce-scatter": (1, 4 * 10),
        "all-reduce": (1, 2 * 11),
    }


def test_copies_of_one_operation_in_fusions_count_once():
    assert by_kind(read_collectives(TPU)) == {
        "all-gather": (1, 2 * 16 * 8),
        "reduce-scatter": (1, 4 * 8),
    }


def test_what_is_in_a_loop_counts_as_often_as_it_runs():
    text = """
%inner (p: f32[]) -> f32[] {
  ROOT %ar = f32[5]{0} all-reduce(%p), channel_id=1, to_apply=%add
}

%body (p: f32[]) -> f32[] {
  ROOT %c = f32[5]{0} call(%p), to_apply=%inner
}

ENTRY %main (p0: f32[4]) -> f32[4] {
  ROOT %w = f32[5]{0} while(%p0), condition=%cond, body=%body, \
backend_config={"known_trip_count":{"n":"3"},"x":1}
}
"""
    assert read_collectives(text) == [Collective("all-reduce", 20, times=3)]
    assert by_kind(read_collectives(text)) == {"all-reduce": (3, 60)}


@pytest.mark.parametrize(
    ("written", "groups"),
    [
        ("replica_groups={}", ()),
        ("replica_groups={{0,1},{2,3}}", ((0, 1), (2, 3))),
        ("replica_groups=[2,2]<=[4]", ((0, 1), (2, 3))),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=4,'b'=1] {'a'}", ((0, 1, 2, 3),)),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}", ((0, 1), (2, 3))),
        ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}", ((0, 1, 2, 3),)),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}", ((0, 1), (2, 3))),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=(0,2,1,3) {'b'}", ((0, 2), (1, 3))),
    ],
)
def test_groups_of_devices_are_read_in_every_notation(written, groups):
    text = f"ENTRY %m (p: f32[]) -> f32[] {{\n  %x = f32[4]{{0}} all-reduce(%p), {written}, a=b\n}}"
    assert read_collectives(text)[0].groups == groups
