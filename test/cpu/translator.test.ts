// The translator against the interpreter: whatever is run must leave the same registers, flags, memory and count of instructions, wherever
// the budget ends it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { compileOnSameThread } from "../../src/cpu/translator/same-thread.ts";
import { Translator } from "../../src/cpu/translator/translator.ts";
import { FCW, GPR_COUNT, MXCSR, RIP, VECTOR_BASE, VECTOR_STRIDE, X87_BASE } from "../../src/isa/state.ts";
import { INSTRUCTIONS } from "../../src/isa/table.ts";
import { BASE, Source } from "./programs.ts";
import { RandomBlocks } from "./random-blocks.ts";
import { AT, onFault, Rig } from "./rig.ts";

const PROGRAMS = Number(process.env.SKEP_TEST_PROGRAMS ?? 600);
const DATA_BYTES = 0x1000;
/** Instructions after which a program that loops is left. */
const LIMIT = 1500;

interface Pair {
  readonly interpreter: Rig;
  readonly translator: Rig;
}

function pair(): Pair {
  return {
    interpreter: new Rig(undefined, {}, undefined).longMode(),
    translator: new Rig(undefined, {}, 1).longMode(),
  };
}

function both({ interpreter, translator }: Pair, act: (rig: Rig) => void): void {
  act(interpreter);
  act(translator);
}

/** Everything that a program can change. */
function image(rig: Rig): string {
  const { engine } = rig;
  const lines = Array.from({ length: GPR_COUNT }, (_, n) => `r${n} ${engine.gpr(n).toString(16)}`);
  lines.push(`rip ${engine.get(RIP).toString(16)}`, `flags ${engine.rflags().toString(16)}`);
  lines.push(`retired ${engine.retired()}`, `mxcsr ${engine.get(MXCSR)}`, `fcw ${engine.get(FCW)}`);
  const state = Buffer.from(engine.memory.buffer);
  for (let n = 0; n < 16; n++) {
    const at = VECTOR_BASE + n * VECTOR_STRIDE;
    lines.push(`xmm${n} ${state.toString("hex", at, at + 16)}`);
  }
  lines.push(`x87 ${state.toString("hex", X87_BASE, X87_BASE + 128)}`);
  return lines.join("\n");
}

function memoryOf(rig: Rig): string {
  const bytes = Buffer.from(rig.ram.buffer);
  const hex = (from: number, length: number): string => bytes.subarray(from, from + length).toString("hex");
  return [
    hex(AT.DATA, DATA_BYTES),
    hex(AT.STACK_TOP - 0x1000, 0x1000),
    hex(AT.EXCEPTION_STACK_TOP - 64, 64),
    hex(AT.CODE, 0x9000),
  ].join("\n");
}

/** Runs what is at AT.CODE in slices of the same size on both, comparing after each. */
function compare(rigs: Pair, slices: Source, what: string): void {
  const { interpreter, translator } = rigs;
  const start = interpreter.engine.retired();
  for (;;) {
    const budget = 1 + slices.below(slices.chance(50) ? 10 : 200);
    const reasons = [interpreter.engine.run(budget), translator.engine.run(budget)];
    assert.equal(reasons[1], reasons[0], `${what}: exit`);
    assert.equal(image(translator), image(interpreter), what);
    if (reasons[0] !== 0 || interpreter.engine.retired() - start > LIMIT) break;
  }
  assert.equal(memoryOf(translator), memoryOf(interpreter), `${what}: memory`);
}

test("random programs run the same translated and interpreted", (t) => {
  const random = new RandomBlocks();
  random.run(Number(process.env.SKEP_TEST_SEED ?? 0), PROGRAMS);
  t.diagnostic(`${random.programs} programs, ${random.blocks} blocks in ${random.regions} regions`);
  assert.ok(random.blocks > PROGRAMS * 6, `${random.blocks} blocks`);
});

/** Runs a program in slices on both, and once more where it is hot. */
function agree(program: readonly number[], prepare: (rig: Rig) => void, passes = 5): Pair {
  const rigs = pair();
  both(rigs, (rig) => rig.write(AT.CODE, program));
  for (let pass = 0; pass < passes; pass++) {
    both(rigs, (rig) => {
      rig.longMode();
      rig.engine.setGpr(BASE, BigInt(AT.DATA));
      rig.engine.set(RIP, AT.CODE);
      prepare(rig);
    });
    compare(rigs, new Source(pass), `pass ${pass}`);
  }
  assert.ok(Number(rigs.translator.engine.statistics().regions) > 0);
  return rigs;
}

test("a loop that changes an immediate of its own", () => {
  // mov ecx, 20; L: add eax, imm8; inc byte [rip - 7 + 3 (the imm8)]; dec ecx; jnz L; hlt
  const program = [0xb9, 20, 0, 0, 0, 0x83, 0xc0, 1, 0xfe, 0x05, 0xf9, 0xff, 0xff, 0xff, 0xff, 0xc9, 0x75, 0xf3, 0xf4];
  const { translator } = agree(program, () => undefined, 3);
  assert.ok(Number(translator.engine.statistics().pagesInvalidated) > 20);
});

test("a store into the next instruction, and one by a string instruction", () => {
  // L: inc byte [rip + 1 (the imm8 behind)]; add eax, imm8; dec ecx; jnz L
  const loop = [0xfe, 0x05, 2, 0, 0, 0, 0x83, 0xc0, 1, 0xff, 0xc9, 0x75, 0xf3];
  // lea rdi, [rip + 1 (the imm8 of add)]; stosb; add edx, imm8; hlt
  const string = [0x48, 0x8d, 0x3d, 3, 0, 0, 0, 0xaa, 0x83, 0xc2, 1, 0xf4];
  agree([0xb9, 9, 0, 0, 0, ...loop, ...string], () => undefined);
});

test("faults in the middle of a loop, with flags that nothing has looked at", () => {
  // L: add rax, rcx; mov rdx, [rbx]; add rbx, 0x2000000; jmp L: leaves the mapped gigabyte
  const program = [0x48, 0x01, 0xc8, 0x48, 0x8b, 0x13, 0x48, 0x81, 0xc3, 0, 0, 0, 2, 0xeb, 0xf1];
  const { translator } = agree(program, (rig) => rig.engine.setGpr(1, 0x8000000000000001n), 3);
  assert.equal(translator.caught(), 14);
  // L: sub eax, 1; cqo-free division: div ecx with ecx counting down to zero
  const divide = [0x83, 0xc0, 0x7f, 0x31, 0xd2, 0xf7, 0xf1, 0xff, 0xc9, 0xeb, 0xf5];
  const divided = agree(divide, (rig) => rig.engine.setGpr(1, 40n), 3);
  assert.equal(divided.translator.caught(), 0);
});

test("vectors across the end of a page, where the next page lies elsewhere", () => {
  // L: movups [rbx + 8], xmm0; movups xmm1, [rbx + 8]; movdqu xmm0, [rbx]; dec ecx; jnz L; hlt
  const program = [0x0f, 0x11, 0x43, 8, 0x0f, 0x10, 0x4b, 8, 0xf3, 0x0f, 0x6f, 0x03, 0xff, 0xc9, 0x75, 0xf0, 0xf4];
  const table = AT.HANDLERS + 0x1000;
  const { translator } = agree(program, (rig) => {
    for (let n = 0; n < 512; n++) rig.view.setBigUint64(table + n * 8, BigInt(AT.DATA + ((n ^ 1) << 12)) | 7n, true);
    rig.view.setBigUint64(AT.PD + (AT.DATA >> 21) * 8, BigInt(table) | 7n, true);
    rig.write(
      AT.DATA,
      Array.from({ length: 0x4000 }, (_, n) => (n * 7) & 0xff),
    );
    rig.engine.registersChanged();
    rig.engine.setGpr(1, 20n);
    rig.engine.setGpr(BASE, BigInt(AT.DATA + 0x0ff0));
  });
  assert.equal(translator.caught(), -1);
});

test("an undefined opcode and a jump to no canonical address end a region as they end a block", () => {
  agree([0xff, 0xc8, 0x75, 0xfc, 0x0f, 0x0b], (rig) => rig.engine.setGpr(0, 30n));
  // L: dec eax; jnz L; jmp rdx
  const { translator } = agree([0xff, 0xc8, 0x75, 0xfc, 0xff, 0xe2], (rig) => {
    rig.engine.setGpr(0, 30n);
    rig.engine.setGpr(2, 1n << 60n);
  });
  assert.equal(translator.caught(), 13);
});

test("what a device writes into code ends its regions", () => {
  const rigs = pair();
  // L: add eax, 1; dec ecx; jnz L; hlt
  both(rigs, (rig) => rig.write(AT.CODE, [0x83, 0xc0, 1, 0xff, 0xc9, 0x75, 0xf9, 0xf4]));
  for (let pass = 0; pass < 6; pass++) {
    both(rigs, (rig) => {
      rig.longMode();
      rig.engine.setGpr(1, 50n);
      rig.engine.set(RIP, AT.CODE);
      rig.engine.run(40);
      rig.write(AT.CODE + 2, [pass + 2]);
    });
    compare(rigs, new Source(pass), `pass ${pass}`);
  }
});

test("code that is thrown away again and again leaves nothing behind", () => {
  const rig = new Rig(undefined, {}, 1).longMode();
  for (let n = 0; n < 3000; n++) {
    rig.write(AT.CODE, [0xb8, n & 0xff, n >> 8, 0, 0, 0xff, 0xc9, 0x75, 0xfc, 0xf4]);
    for (let pass = 0; pass < 2; pass++) {
      rig.engine.setGpr(1, 3n);
      rig.engine.set(RIP, AT.CODE);
      rig.engine.run(1000);
      assert.equal(rig.engine.gpr(0), BigInt(n));
    }
  }
  assert.ok(Number(rig.engine.statistics().regions) >= 3000);
});

test("what a region knows of MXCSR outlives the values of other instructions", () => {
  // sbb al, 0x54; divss xmm0, xmm2 with a divisor of zero; hlt
  agree([0x1c, 0x54, 0xf3, 0x0f, 0x5e, 0xc2, 0xf4], (rig) => {
    rig.engine.setRflags(2);
    rig.engine.setGpr(0, 0n);
    const state = new DataView(rig.engine.memory.buffer);
    state.setFloat32(VECTOR_BASE, 1, true);
    state.setFloat32(VECTOR_BASE + 2 * VECTOR_STRIDE, 0, true);
  });
});

test("regions are told of as they come and go, and instructions counted by tier", () => {
  const lines: string[] = [];
  const rig = new Rig(undefined, {}, (host) => {
    const compiler = compileOnSameThread({ instructions: INSTRUCTIONS, onFault });
    return new Translator(host, { compiler, threshold: 2, trace: (line) => lines.push(line) });
  }).longMode();
  // L: add eax, ecx; dec ecx; jnz L; hlt
  rig.write(AT.CODE, [0x01, 0xc8, 0xff, 0xc9, 0x75, 0xfa, 0xf4]);
  for (let pass = 0; pass < 3; pass++) {
    rig.engine.setGpr(1, 1000n);
    rig.engine.set(RIP, AT.CODE);
    rig.engine.run(100_000);
  }
  assert.match(lines[0], /^\d+ at 100000 \(host 100000\): 2 blocks, 4 instructions, 1 entries$/);
  assert.match(lines.join("; "), /\d+ entered/);
  const { retired, retiredInRegions, retiredInterpreted } = rig.engine.statistics();
  assert.equal(retired, 9003);
  assert.equal(retiredInRegions + retiredInterpreted, retired);
  assert.ok(retiredInRegions > 5000 && retiredInRegions < 6020, `${retiredInRegions}`);
});

test("what a comparison of numbers says, to every condition, at once, in the next block and behind the region", () => {
  const numbers = [0, -0, 1, -1, Number.NaN, Number.POSITIVE_INFINITY, 2 ** -1060];
  // setcc [rbx + cc], 16 times
  const conditions = Array.from({ length: 16 }, (_, cc) => [0x0f, 0x90 | cc, 0x43, cc]).flat();
  for (const single of [false, true]) {
    const prefix = single ? [] : [0x66];
    // comisd xmm0, xmm1; setcc...; comisd xmm1, xmm0; jmp over; setcc...; ucomisd xmm0, xmm1; hlt
    const program = [
      ...[...prefix, 0x0f, 0x2f, 0xc1, ...conditions],
      ...[...prefix, 0x0f, 0x2f, 0xc8, 0xeb, 0],
      ...conditions.map((byte, n) => (n % 4 === 3 ? byte + 16 : byte)),
      ...[...prefix, 0x0f, 0x2e, 0xc1, 0xf4],
    ];
    let next = 0;
    agree(
      program,
      ({ engine }) => {
        const pair = next++ >> 1;
        const state = new DataView(engine.memory.buffer);
        [numbers[pair % numbers.length], numbers[Math.floor(pair / numbers.length)]].forEach((number, n) => {
          if (single) state.setFloat32(VECTOR_BASE + n * VECTOR_STRIDE, number, true);
          else state.setFloat64(VECTOR_BASE + n * VECTOR_STRIDE, number, true);
        });
      },
      numbers.length ** 2,
    );
  }
});
