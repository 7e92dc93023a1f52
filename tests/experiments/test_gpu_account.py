from experiments.benchmarks import gpu_account
from experiments.benchmarks.gpu_account import Account, Kernel, count_in_loops, read_kernels

# As XLA for GPUs writes a program: two computations of fusions, then the entry.
PROGRAM = """HloModule jit_loss, is_scheduled=true, num_partitions=1

%fused_reduce (param_0: bf16[8,4,4,16]) -> (f32[16], f32[16]) {
  %param_0 = bf16[8,4,4,16]{3,2,1,0} parameter(0)
  %convert.1 = f32[8,4,4,16]{3,2,1,0} convert(%param_0)
  %zero = f32[] constant(0)
  %reduce.1 = f32[16]{0} reduce(%convert.1, %zero), dimensions={0,1,2}, to_apply=%add
  ROOT %tuple.1 = (f32[16]{0}, f32[16]{0}) tuple(%reduce.1, %reduce.1)
}

%fused_copy (param_0.1: f32[16,8]) -> f32[8,16] {
  %param_0.1 = f32[16,8]{1,0} parameter(0)
  ROOT %transpose = f32[8,16]{1,0} transpose(%param_0.1), dimensions={1,0}
}

ENTRY %main (images: bf16[8,4,4,3], kernel: bf16[16,3,3,3]) -> (f32[16], f32[8,16]) {
  %images = bf16[8,4,4,3]{3,2,1,0} parameter(0)
  %kernel = bf16[16,3,3,3]{3,2,1,0} parameter(1)
  %number = f32[] constant(2)
  %conv.1 = (bf16[8,4,4,16]{3,2,1,0}, u8[100]{0}) custom-call(%images, %kernel), \
window={size=3x3}, custom_call_target="__cudnn$convForward", metadata={op_name="jit(loss)/conv"}
  %get-tuple-element.1 = bf16[8,4,4,16]{3,2,1,0} get-tuple-element(%conv.1), index=0
  %input_reduce_fusion = (f32[16]{0}, f32[16]{0}) fusion(%get-tuple-element.1), kind=kInput, \
calls=%fused_reduce
  %get-tuple-element.2 = f32[16]{0} get-tuple-element(%input_reduce_fusion), index=0
  %bitcast.1 = f32[16,1]{1,0} bitcast(%get-tuple-element.2)
  %loop_add_fusion = (f32[16]{0}, f32[16]{0}, f32[16]{0}, f32[16]{0}, f32[16]{0}, \
/*index=5*/f32[16,8]{1,0}) fusion(%bitcast.1, %number, %bitcast.1, %number, %number, \
/*index=5*/%number), kind=kLoop, calls=%fused_add
  %get-tuple-element.3 = f32[16,8]{1,0} get-tuple-element(%loop_add_fusion), index=5
  %input_transpose_fusion = f32[8,16]{1,0} fusion(%get-tuple-element.3), kind=kInput, \
calls=%fused_copy
  %loop_reduce_window_fusion = f32[8,16]{1,0} fusion(%input_transpose_fusion), kind=kLoop, \
calls=%fused_pool
  ROOT %tuple.2 = (f32[16]{0}, f32[8,16]{1,0}) tuple(%get-tuple-element.2, \
%loop_reduce_window_fusion)
}
"""


def test_a_kernel_moves_its_operands_and_results():
    maps, sums, matrix = 2 * 8 * 4 * 4 * 16, 4 * 16, 4 * 8 * 16
    assert read_kernels(PROGRAM) == [
        Kernel("convolutions", "conv.1", 2 * 8 * 4 * 4 * 3 + 2 * 16 * 27 + maps + 100),
        Kernel("reductions", "input_reduce_fusion", maps + 2 * sums),
        Kernel("others", "loop_add_fusion", 2 * sums + 4 * 4 + 5 * sums + matrix),
        Kernel("copies", "input_transpose_fusion", 2 * matrix),
        Kernel("others", "loop_reduce_window_fusion", 2 * matrix),
    ]


def test_kernels_of_loops_count_as_often_as_they_run():
    loop = """HloModule jit_loss

%fused_add (param_0: f32[8]) -> f32[8] {
  ROOT %add.9 = f32[8]{0} add(%param_0, %param_0)
}

%body (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %state = (s32[], f32[8]{0}) parameter(0)
  %map = f32[8]{0} get-tuple-element(%state), index=1
  %wrapped_add = f32[8]{0} fusion(%map), kind=kLoop, calls=%fused_add
  ROOT %next = (s32[], f32[8]{0}) tuple(%state, %wrapped_add)
}

%goes_on (state.1: (s32[], f32[8])) -> pred[] {
  %state.1 = (s32[], f32[8]{0}) parameter(0)
  ROOT %wrapped_compare = pred[] fusion(%state.1), kind=kLoop, calls=%fused_add
}

ENTRY %main (start: (s32[], f32[8])) -> (s32[], f32[8]) {
  %start = (s32[], f32[8]{0}) parameter(0)
  ROOT %while.1 = (s32[], f32[8]{0}) while(%start), condition=%goes_on, body=%body, TRIPS
}
"""
    known = 'backend_config={"known_trip_count":{"n":"7"}}'
    assert count_in_loops(loop.replace("TRIPS", known)) == 7 * 2
    assert count_in_loops(loop.replace(", TRIPS", "")) == 2
    assert count_in_loops(PROGRAM) == 0


def test_each_network_is_compared_with_its_plain_twin(monkeypatch):
    class Compiled:
        def as_text(self):
            return PROGRAM

        def memory_analysis(self):
            return type("Memory", (), {"temp_size_in_bytes": 10**9})

    models = []

    def compile_step(model, *rest):
        models.append(model)
        return Compiled()

    monkeypatch.setattr(gpu_account, "compile_step", compile_step)
    monkeypatch.setattr(gpu_account, "compile_detection_step", compile_step)
    account = Account(
        models=("seresnet18", "cifar_resnet8"),
        unfused=("seresnet18",),
        detectors=("maskrcnn_resnet18_fpn", "maskrcnn_seresnet18_fpn"),
    )
    found = list(gpu_account.rows(account, sharding=None))
    names = ["seresnet18, plain Flax", "seresnet18", "seresnet18, fused=False", "cifar_resnet8"]
    assert [row["network"] for row in found] == [*names, *account.detectors]
    assert [row.get("GB / plain") for row in found] == [None, 1, 1, None, 1, 1]
    assert [getattr(model, "fused", None) for model in models[:4]] == [None, True, False, True]
    assert [type(model).__name__ for model in models[4:]] == ["MaskRCNN"] * 2
    for row in found:
        assert row["kernels"] == sum(row[f"{kind} kernels"] for kind in gpu_account.KINDS) == 5
        assert row["temporaries GB"] == 1
