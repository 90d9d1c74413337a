// Regions as text: guest instructions from our own table, each before the WebAssembly made of it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { compileOnSameThread } from "../../src/cpu/translator/same-thread.ts";
import { Translator } from "../../src/cpu/translator/translator.ts";
import { RIP } from "../../src/isa/state.ts";
import { INSTRUCTIONS } from "../../src/isa/table.ts";
import { type Note, wasmText } from "../../src/wasm/text.ts";
import { BASE, randomProgram, Source } from "./programs.ts";
import { AT, onFault, Rig } from "./rig.ts";

function dumping(lines: string[]): Rig {
  return new Rig(undefined, {}, (host) => {
    const compiler = compileOnSameThread({ instructions: INSTRUCTIONS, onFault, dump: (line) => lines.push(line) });
    return new Translator(host, { compiler, threshold: 1 });
  }).longMode();
}

test("a loop, its instructions in their places and names", () => {
  const lines: string[] = [];
  const rig = dumping(lines);
  // L: add rax, [rbx + rcx * 8 + 0x10]; mov [rip + 0x1000], al; movzx r9d, bh; addsd xmm2, xmm11; rol r9, 5; dec ecx; jnz L; hlt
  const program = [
    0x48, 0x03, 0x44, 0xcb, 0x10, 0x88, 0x05, 0, 0x10, 0, 0, 0x44, 0x0f, 0xb6, 0xc9, 0xf2, 0x41, 0x0f, 0x58, 0xd3, 0x49,
    0xc1, 0xc1, 5, 0xff, 0xc9, 0x75, 0xe4, 0xf4,
  ];
  rig.write(AT.CODE, program);
  rig.engine.setGpr(BASE, BigInt(AT.DATA));
  rig.engine.setGpr(1, 20n);
  rig.engine.set(RIP, AT.CODE);
  rig.engine.run(1000);
  const instructions = lines.filter((line) => /^100/.test(line)).slice(0, 7);
  assert.deepEqual(
    instructions.map((line) => line.replace(/rip page .*\]/, "rip page]")),
    [
      "100000  add rax, [rbx + rcx*8 + 0x10]",
      "100005  mov [rip page], al",
      "10000b  movzx r9d, cl",
      "10000f  addsd xmm2, xmm11",
      "100014  rol r9, 0x5",
      "100018  dec ecx",
      "10001a  jne 0x100000",
    ],
  );
  assert.ok(lines.some((line) => line.trim() === "f64.add"));
  assert.equal(
    lines.filter((line) => /^\s+(block|loop|if)\b/.test(line)).length,
    lines.filter((line) => line.trim() === "end").length,
  );
});

test("whatever is made can be read", () => {
  const lines: string[] = [];
  const rig = dumping(lines);
  for (let seed = 0; seed < 80; seed++) {
    const s = new Source(seed);
    rig.write(AT.CODE, randomProgram(s, 12).bytes);
    for (let pass = 0; pass < 2; pass++) {
      rig.longMode();
      rig.engine.setGpr(BASE, BigInt(AT.DATA));
      rig.engine.setGpr(1, 5n);
      rig.engine.set(RIP, AT.CODE);
      for (let slice = 0; slice < 5; slice++) rig.engine.run(40);
    }
  }
  assert.ok(lines.length > 10_000);
});

test("notes stand before the instruction at their offset", () => {
  const notes: Note[] = [
    { at: 2, text: "b" },
    { at: 0, text: "a" },
    { at: 9, text: "behind" },
  ];
  // i32.const 5; i32.const -1; i32.add; drop
  assert.deepEqual(wasmText(Uint8Array.of(0x41, 5, 0x41, 0x7f, 0x6a, 0x1a), notes), [
    "a",
    "  i32.const 5",
    "b",
    "  i32.const -1",
    "  i32.add",
    "  drop",
    "behind",
  ]);
});
