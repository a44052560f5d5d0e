"""Bytes of a program are what its instructions read and write, of slices what they touch."""

import pytest

from benchmarks.moved_bytes import Bytes, bytes_of_array, bytes_of_computations

# A body that gathers 2 of 64 rows, updates one of 8 places, copies, adds up, and cuts off a slice.
PROGRAM = """HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%gathers (indices: s32[2], rows: f32[64,16]) -> f32[2,16] {
  %indices = s32[2]{0} parameter(0)
  %rows = f32[64,16]{1,0} parameter(1)
  ROOT %found = f32[2,16]{1,0} gather(%rows, %indices), offset_dims={1}
}

%updates (all: f32[8,16], one: f32[1,16]) -> f32[8,16] {
  %all = f32[8,16]{1,0} parameter(0)
  %one = f32[1,16]{1,0} parameter(1)
  %zero = s32[] constant(0)
  ROOT %updated = f32[8,16]{1,0} dynamic-update-slice(%all, %one, %zero, %zero)
}

%body (p: (s32[2], f32[64,16], f32[8,16], f32[1,16])) -> (s32[2], f32[64,16], f32[8,16], f32[1,16]) {
  %p = (s32[2]{0}, f32[64,16]{1,0}, f32[8,16]{1,0}, f32[1,16]{1,0}) parameter(0)
  %i = s32[2]{0} get-tuple-element(%p), index=0
  %rows.1 = f32[64,16]{1,0} get-tuple-element(%p), index=1
  %all.1 = f32[8,16]{1,0} get-tuple-element(%p), index=2
  %one.1 = f32[1,16]{1,0} get-tuple-element(%p), index=3
  %two = f32[2,16]{1,0} fusion(%i, %rows.1), kind=kCustom, calls=%gathers
  %all.2 = f32[8,16]{1,0} fusion(%all.1, %one.1), kind=kLoop, calls=%updates
  %copy-start = (f32[8,16]{1,0}, f32[8,16]{1,0}, u32[]) copy-start(%all.2)
  %copy-done = f32[8,16]{1,0} copy-done(%copy-start)
  %sum.1 = f32[] reduce(%two, %zero.1), dimensions={0,1}, to_apply=%add
  %cut = f32[4,16]{1,0} slice(%rows.1), slice={[0:4], [0:16]}
  ROOT %t = (s32[2]{0}, f32[64,16]{1,0}, f32[8,16]{1,0}, f32[1,16]{1,0}) tuple(%i, %rows.1, %all.2, %one.1)
}

ENTRY %main (a: f32[3]) -> f32[3] {
  %a = f32[3]{0:T(128)} parameter(0)
  ROOT %twice = f32[3]{0:T(128)} add(%a, %a)
}
"""


def test_bytes_of_a_loop_and_of_what_runs_once() -> None:
    gathered, updated, copied = 8 + 128 + 128, 64 + 64, 2 * 512
    added_up, cut_off = 128 + 4, 2 * 256
    assert bytes_of_computations(PROGRAM) == {
        "body": Bytes(gathered + updated + copied + added_up + cut_off, 0),
        "main": Bytes(3 * 128 * 4, 0),
    }


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # Through a bitcast a fusion reads 2 of 64 rows of the main memory, and writes them into the fast one.
        (
            """%slices (rows: f32[64,16]) -> f32[2,16] {
  %rows = f32[64,16]{1,0} parameter(0)
  %named = f32[64,16]{1,0} bitcast(%rows)
  %zero = s32[] constant(0)
  ROOT %cut = f32[2,16]{1,0} dynamic-slice(%named, %zero, %zero), dynamic_slice_sizes={2,16}
}

ENTRY %main (a: f32[64,16]) -> f32[2,16] {
  %a = f32[64,16]{1,0} parameter(0)
  ROOT %r = f32[2,16]{1,0:S(1)} fusion(%a), kind=kLoop, calls=%slices
}""",
            Bytes(128, 128),
        ),
        # Two results of a fusion: one place of an array that is updated, and a new array.
        (
            """%updates (all: f32[8,16], one: f32[1,16]) -> (f32[8,16], f32[1,16]) {
  %all = f32[8,16]{1,0} parameter(0)
  %one = f32[1,16]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %updated = f32[8,16]{1,0} dynamic-update-slice(%all, %one, %zero, %zero)
  %twice = f32[1,16]{1,0} add(%one, %one)
  ROOT %both = (f32[8,16]{1,0}, f32[1,16]{1,0}) tuple(%updated, %twice)
}

ENTRY %main (a: f32[8,16], b: f32[1,16]) -> (f32[8,16], f32[1,16]) {
  %a = f32[8,16]{1,0} parameter(0)
  %b = f32[1,16]{1,0} parameter(1)
  ROOT %r = (f32[8,16]{1,0}, f32[1,16]{1,0}) fusion(%a, %b), kind=kLoop, calls=%updates
}""",
            Bytes(3 * 64, 0),
        ),
        # A copy into the fast memory in two slices, which then have one name.
        (
            """ENTRY %main (a: f32[8,16]) -> f32[8,16] {
  %a = f32[8,16]{1,0} parameter(0)
  %s1 = ((f32[8,16]{1,0}), f32[4,16]{1,0:S(1)}, s32[]) slice-start(%a), slice={[0:4], [0:16]}
  %s2 = ((f32[8,16]{1,0}), f32[4,16]{1,0:S(1)}, s32[]) slice-start(%a), slice={[4:8], [0:16]}
  %d1 = f32[4,16]{1,0:S(1)} slice-done(%s1)
  %d2 = f32[4,16]{1,0:S(1)} slice-done(%s2)
  ROOT %r = f32[8,16]{1,0:S(1)} custom-call(%d1, %d2), custom_call_target="ConcatBitcast"
}""",
            Bytes(512, 512),
        ),
    ],
    ids=["slice", "update", "prefetch"],
)
def test_bytes_of_fusions_and_of_the_fast_memory(lines: str, expected: Bytes) -> None:
    assert bytes_of_computations(lines) == {"main": expected}


def test_arrays_are_padded_to_their_tiles() -> None:
    assert bytes_of_array("u8[2048,84,84,3]{2,1,3,0:T(8,128)(4,1)S(1)}") == Bytes(0, 2048 * 88 * 128 * 3)
    assert bytes_of_array("(bf16[3,5]{0,1:T(8,128)(2,1)}, f32[], pred[7]{0})") == Bytes(2 * 128 * 8 + 4 + 7, 0)
    with pytest.raises(KeyError, match="s4"):
        bytes_of_array("s4[8]{0}")
