// An interrupt at every point of a loop where one can come: whatever the budget, the translator must have stopped where the interpreter has, and
// a handler that changes what the loop works with must leave the same.

import assert from "node:assert/strict";
import { test } from "node:test";
import { EXIT } from "../../src/isa/exit.ts";
import { ACTIVITY, FCW, GPR_COUNT, RIP, RIP_BASE, STATE_FIELDS, VECTOR_BASE, X87_BASE } from "../../src/isa/state.ts";
import { EVENT, INJECT } from "../../src/vmm/engine.ts";
import { AT, everything, Rig } from "./rig.ts";

const VECTOR = 0x40;
const HANDLER = AT.HANDLERS + 0x1000;
const DATA = AT.DATA;
const STATE_END = X87_BASE + 128;

/** push rax; mov rax, [DATA + 0x800]; lea rax, [rax * 3 + 1]; mov [DATA + 0x800], rax; xor [DATA + 0x40], rax; inc r14; pop rax; iretq */
const HANDLER_CODE = [
  0x50, 0x48, 0x8b, 0x04, 0x25, 0x00, 0x08, 0x20, 0x00, 0x48, 0x8d, 0x44, 0x40, 0x01, 0x48, 0x89, 0x04, 0x25, 0x00,
  0x08, 0x20, 0x00, 0x48, 0x31, 0x04, 0x25, 0x40, 0x00, 0x20, 0x00, 0x49, 0xff, 0xc6, 0x58, 0x48, 0xcf,
];

interface Loop {
  readonly name: string;
  readonly code: readonly number[];
  /** Instructions between which interrupts are put off by the guest. */
  readonly at?: number;
}

/** Each ends in HLT, and works with [rbx + ...], where the handler writes. rcx counts. */
const LOOPS: readonly Loop[] = [
  {
    name: "a counting loop",
    // L: add rax, rcx; dec ecx; jnz L; hlt
    code: [0x48, 0x01, 0xc8, 0xff, 0xc9, 0x75, 0xf9, 0xf4],
  },
  {
    name: "flags that live from one block to another",
    // L: add rax, [rbx + 0x40]; mov rdx, [rbx]; jc N; adc rsi, 1; N: rcl rdi, 1; dec ecx; jnz L; hlt
    code: [
      0x48, 0x03, 0x43, 0x40, 0x48, 0x8b, 0x13, 0x72, 0x04, 0x48, 0x83, 0xd6, 0x01, 0x48, 0xd1, 0xd7, 0xff, 0xc9, 0x75,
      0xec, 0xf4,
    ],
  },
  {
    name: "nested loops",
    // L: mov edx, 3; M: xor rax, [rbx + 0x40]; rol rax, 5; dec edx; jnz M; mov [rbx], rax; dec ecx; jnz L; hlt
    code: [
      0xba, 3, 0, 0, 0, 0x48, 0x33, 0x43, 0x40, 0x48, 0xc1, 0xc0, 5, 0xff, 0xca, 0x75, 0xf4, 0x48, 0x89, 0x03, 0xff,
      0xc9, 0x75, 0xe8, 0xf4,
    ],
  },
  {
    name: "a loop with two entries",
    // test ecx, 1; jz M; L: add rax, 7; M: xor rax, [rbx + 0x40]; test al, 4; jz N; sub rsi, rax; N: dec ecx; jz end; test al, 1; jz L; jmp M; end: hlt
    code: [
      0xf7, 0xc1, 1, 0, 0, 0, 0x74, 0x04, 0x48, 0x83, 0xc0, 7, 0x48, 0x33, 0x43, 0x40, 0xa8, 4, 0x74, 3, 0x48, 0x29,
      0xc6, 0xff, 0xc9, 0x74, 6, 0xa8, 1, 0x74, 0xe9, 0xeb, 0xeb, 0xf4,
    ],
  },
  {
    name: "calls, returns and an indirect jump",
    // L: call F; lea rdx, [rip + 2 (the dec)]; jmp rdx; dec ecx; jnz L; hlt; F: add rax, [rbx + 0x40]; push rax; pop rsi; ret
    code: [
      0xe8, 0x10, 0, 0, 0, 0x48, 0x8d, 0x15, 2, 0, 0, 0, 0xff, 0xe2, 0xff, 0xc9, 0x75, 0xee, 0xf4, 0x90, 0x90, 0x48,
      0x03, 0x43, 0x40, 0x50, 0x5e, 0xc3,
    ],
  },
  {
    name: "string instructions",
    // L: push rcx; lea rdi, [rbx + 0x100]; lea rsi, [rbx]; mov ecx, 9; rep movsq; std; mov ecx, 5; sub rdi, 8; rep stosd; cld; pop rcx; dec ecx; jnz L; hlt
    code: [
      0x51, 0x48, 0x8d, 0xbb, 0, 1, 0, 0, 0x48, 0x8d, 0x33, 0xb9, 9, 0, 0, 0, 0xf3, 0x48, 0xa5, 0xfd, 0xb9, 5, 0, 0, 0,
      0x48, 0x83, 0xef, 8, 0xf3, 0xab, 0xfc, 0x59, 0xff, 0xc9, 0x75, 0xdb, 0xf4,
    ],
  },
  {
    name: "vectors and numbers",
    // L: movups xmm0, [rbx + 0x40]; paddq xmm1, xmm0; addsd xmm2, xmm3; cvttsd2si rax, xmm2; movups [rbx + 0x60], xmm1; dec ecx; jnz L; hlt
    code: [
      0x0f, 0x10, 0x43, 0x40, 0x66, 0x0f, 0xd4, 0xc8, 0xf2, 0x0f, 0x58, 0xd3, 0xf2, 0x48, 0x0f, 0x2c, 0xc2, 0x0f, 0x11,
      0x4b, 0x60, 0xff, 0xc9, 0x75, 0xe7, 0xf4,
    ],
  },
  {
    name: "x87 registers over blocks",
    // fninit; fld1; L: fild qword [rbx + 0x40]; faddp; fld st0; fsqrt; fstp qword [rbx + 0x80]; dec ecx; jnz L; fstp qword [rbx]; hlt
    code: [
      0xdb, 0xe3, 0xd9, 0xe8, 0xdf, 0x6b, 0x40, 0xde, 0xc1, 0xd9, 0xc0, 0xd9, 0xfa, 0xdd, 0x9b, 0x80, 0, 0, 0, 0xff,
      0xc9, 0x75, 0xed, 0xdd, 0x1b, 0xf4,
    ],
  },
  {
    name: "a loop over the end of a page",
    // L: add rax, [rbx + 0x40]; (the page ends) lea rsi, [rax + rcx]; mov [rbx], rsi; dec ecx; jnz L; hlt
    code: [0x48, 0x03, 0x43, 0x40, 0x48, 0x8d, 0x34, 0x08, 0x48, 0x89, 0x33, 0xff, 0xc9, 0x75, 0xf1, 0xf4],
    at: AT.CODE + 0x1000 - 6,
  },
  {
    name: "interrupts put off, and the shadow of STI",
    // L: cli; add rax, [rbx + 0x40]; mov [rbx], rax; sti; add rsi, rax; add rdi, rsi; dec ecx; jnz L; hlt
    code: [
      0xfa, 0x48, 0x03, 0x43, 0x40, 0x48, 0x89, 0x03, 0xfb, 0x48, 0x01, 0xc6, 0x48, 0x01, 0xf7, 0xff, 0xc9, 0x75, 0xed,
      0xf4,
    ],
  },
  {
    name: "POPF that lets interrupts in",
    // L: pushf; cli; add rax, [rbx + 0x40]; popf; adc rsi, rax; dec ecx; jnz L; hlt
    code: [0x9c, 0xfa, 0x48, 0x03, 0x43, 0x40, 0x9d, 0x48, 0x11, 0xc6, 0xff, 0xc9, 0x75, 0xf2, 0xf4],
  },
];
const ROUNDS = 6;

function prepared(threshold: number | undefined, { code, at = AT.CODE }: Loop): Rig {
  const rig = new Rig(everything(), {}, threshold).longMode();
  rig.write(HANDLER, HANDLER_CODE);
  rig.view.setUint16(AT.IDT + VECTOR * 16, HANDLER, true);
  rig.write(at, code);
  return rig;
}

function start(rig: Rig, at: number): void {
  const { engine } = rig;
  rig.longMode();
  rig.write(
    DATA,
    Array.from({ length: 0x1000 }, (_, n) => (n * 37 + (n >> 3)) & 0xff),
  );
  rig.bytes.fill(0, AT.STACK_TOP - 0x100, AT.STACK_TOP);
  new Uint8Array(engine.memory.buffer).fill(0, VECTOR_BASE, STATE_END);
  for (let n = 0; n < GPR_COUNT; n++) engine.setGpr(n, BigInt(n) * 0x0123456789abcdefn);
  engine.setGpr(1, BigInt(ROUNDS));
  engine.setGpr(3, BigInt(DATA));
  engine.setGpr(4, BigInt(AT.STACK_TOP));
  const state = new DataView(engine.memory.buffer);
  state.setFloat64(VECTOR_BASE + 3 * 64, 1.25, true);
  engine.set(FCW, 0x37f);
  engine.set(ACTIVITY, 0);
  engine.setRflags(0x202);
  engine.set(RIP, at);
}

/** Registers and what the loops and the handler write. */
function image(rig: Rig): string {
  const { engine } = rig;
  const bytes = Buffer.from(engine.memory.buffer);
  const lines = Array.from({ length: GPR_COUNT }, (_, n) => `r${n} ${engine.gpr(n).toString(16)}`);
  lines.push(`flags ${engine.rflags().toString(16)}`, `retired ${engine.retired()}`);
  for (const field of STATE_FIELDS) {
    if (field !== RIP_BASE && !/^(flags|rflags)/.test(field.name)) lines.push(`${field.name} ${engine.get(field)}`);
  }
  lines.push(bytes.toString("hex", VECTOR_BASE, STATE_END));
  lines.push(Buffer.from(rig.bytes.slice(DATA, DATA + 0x1000)).toString("hex"));
  lines.push(Buffer.from(rig.bytes.slice(AT.STACK_TOP - 0x100, AT.STACK_TOP)).toString("hex"));
  return lines.join("\n");
}

/** Runs to the end; with `after`, an interrupt is asked for after so many instructions and comes where the guest takes it. Gives the lines at each stop. */
function run(rig: Rig, at: number, after: number): { stops: string[]; instructions: number; taken: number } {
  const { engine } = rig;
  start(rig, at);
  const before = engine.retired();
  const stops: string[] = [];
  let waiting = after > 0;
  let taken = 0;
  let budget = waiting ? after : 100_000;
  for (let stop = 0; stop < 50; stop++) {
    const reason = engine.run(budget);
    stops.push(
      `${reason} at ${engine.get(RIP).toString(16)}\n${image(rig).replace(/retired \d+/, `retired ${engine.retired() - before}`)}`,
    );
    if (reason === EXIT.HLT) break;
    budget = 100_000;
    if (!waiting) continue;
    if (engine.canInject(INJECT.INTERRUPT)) {
      engine.setPendingEvents(0);
      assert.ok(engine.inject(INJECT.INTERRUPT, VECTOR));
      waiting = false;
      taken++;
    } else engine.setPendingEvents(EVENT.INTERRUPT);
  }
  return { stops, instructions: engine.retired() - before, taken };
}

function difference(actual: readonly string[], expected: readonly string[]): string | undefined {
  for (let n = 0; n < Math.max(actual.length, expected.length); n++) {
    const is = (actual[n] ?? "").split("\n");
    const line = (expected[n] ?? "").split("\n").findIndex((text, k) => text !== is[k]);
    if (line >= 0) return `stop ${n}: ${is[line]}, interpreted ${expected[n].split("\n")[line]}`;
  }
  return undefined;
}

for (const loop of LOOPS) {
  test(`interrupts at every point of ${loop.name}`, (t) => {
    const at = loop.at ?? AT.CODE;
    const interpreter = prepared(undefined, loop);
    const translator = prepared(1, loop);
    const { instructions } = run(interpreter, at, 0);
    // Hot, the handler too.
    for (let after = 1; after < 12; after++) run(translator, at, after);
    let points = 0;
    for (let after = 1; after <= instructions; after++) {
      const expected = run(interpreter, at, after);
      const actual = run(translator, at, after);
      assert.equal(difference(actual.stops, expected.stops), undefined, `after ${after} instructions`);
      points += expected.taken;
    }
    assert.ok(points > instructions / 2, `${points} interrupts in ${instructions} instructions`);
    assert.ok(Number(translator.engine.statistics().regions) > 0);
    t.diagnostic(`${points} interrupts`);
  });
}
