// How regions are shared, kept and dropped: one module for two vCPUs, code that changes while its region is being made, modules that are dropped
// for others, and a guest that makes new code without end. SKEP_TEST_FUNCTIONS makes the last longer.

import assert from "node:assert/strict";
import { test } from "node:test";
import { DESCRIPTOR_SIZE, DESCRIPTORS } from "../../src/cpu/layout.ts";
import type {
  CodeConstants,
  CompileReply,
  CompileRequest,
  CompileService,
} from "../../src/cpu/translator/compile-service.ts";
import { Compiler, type CompilerOptions } from "../../src/cpu/translator/compiler.ts";
import { packRequest, unpackRequest } from "../../src/cpu/translator/packed-request.ts";
import { compileOnSameThread } from "../../src/cpu/translator/same-thread.ts";
import { Translator } from "../../src/cpu/translator/translator.ts";
import { EXIT } from "../../src/isa/exit.ts";
import { RIP } from "../../src/isa/state.ts";
import { INSTRUCTIONS } from "../../src/isa/table.ts";
import { AT, everything, onFault, Rig } from "./rig.ts";

const HLT = 0xf4;
/** L: add eax, imm8; dec ecx; jnz L; hlt */
const loop = (step: number): number[] => [0x83, 0xc0, step, 0xff, 0xc9, 0x75, 0xf9, HLT];

type Statistic =
  | "regions"
  | "regionModules"
  | "regionModulesDropped"
  | "regionModulesKept"
  | "regionBytesKept"
  | "regionsStale"
  | "regionsRefused";

function count(rig: Rig, name: Statistic): number {
  return Number(rig.engine.statistics()[name]);
}

/** Runs code at a place for `times` rounds, in slices; what it has in EAX. */
function rounds(rig: Rig, at: number, times: number, slice = 20): number {
  rig.engine.setGpr(0, 0n);
  rig.engine.setGpr(1, BigInt(times));
  rig.engine.set(RIP, at);
  let reason: number = EXIT.BUDGET;
  for (let n = 0; reason === EXIT.BUDGET; n++) {
    assert.ok(n < 10_000);
    reason = rig.engine.run(slice);
  }
  assert.equal(reason, EXIT.HLT);
  return Number(rig.engine.gpr(0));
}

/** A compiler that is elsewhere: it works when it is told to. */
class Elsewhere {
  private compiler: Compiler | undefined;
  private readonly options: CompilerOptions;

  constructor(options: Partial<CompilerOptions> = {}) {
    this.options = { instructions: INSTRUCTIONS, onFault, ...options };
  }

  readonly connect = (constants: CodeConstants): CompileService => {
    this.compiler ??= new Compiler(constants, this.options);
    const { compiler } = this;
    const replies: CompileReply[] = [];
    const client = { reply: (reply: CompileReply) => void replies.push(reply) };
    return {
      background: true,
      // As a message between threads would be.
      request: (request: CompileRequest) =>
        compiler.request(client, unpackRequest(structuredClone(packRequest(request)))),
      take: () => replies.shift(),
    };
  };

  work(): void {
    while (this.compiler?.work());
  }
}

function connected(
  compiler: (constants: CodeConstants) => CompileService,
  threshold: number,
  largeAfter = 100_000,
): Rig {
  return new Rig(
    everything(),
    {},
    (host) => new Translator(host, { compiler, threshold, askAfter: 0, largeAfter }),
  ).longMode();
}

function pair(compiler: (constants: CodeConstants) => CompileService): [Rig, Rig] {
  const rigs: Rig[] = [];
  for (const other of [1, 0]) {
    const host = {
      protectPage: (page: number) => rigs[other]?.engine.protectPage(page),
      codeWritten: (at: number, length: number) => rigs[other]?.engine.codeWritten(at, length),
    };
    rigs.push(
      new Rig(
        everything(),
        host,
        (engine) => new Translator(engine, { compiler, threshold: 2 }),
        rigs[0]?.ram,
      ).longMode(),
    );
  }
  return [rigs[0], rigs[1]];
}

/** What a vCPU knows of its regions. */
function descriptors(rig: Rig, regions: number): Buffer {
  return Buffer.from(
    new Uint8Array(rig.engine.memory.buffer).slice(DESCRIPTORS, DESCRIPTORS + regions * DESCRIPTOR_SIZE),
  );
}

test("two vCPUs with blocks at different places run one module", () => {
  const [a, b] = pair(compileOnSameThread({ instructions: INSTRUCTIONS, onFault }));
  a.write(AT.CODE, loop(3));
  // Something else first, so that the records of the two lie elsewhere.
  b.write(AT.CODE + 0x2000, [0x90, 0x90, 0x90, HLT]);
  rounds(b, AT.CODE + 0x2000, 1);
  assert.equal(rounds(a, AT.CODE, 50), 150);
  assert.equal(rounds(b, AT.CODE, 70), 210);
  assert.deepEqual([count(a, "regions"), count(b, "regions")], [1, 1]);
  assert.deepEqual([count(a, "regionModules"), count(b, "regionModules")], [1, 1]);
  assert.notDeepEqual(descriptors(a, 1), descriptors(b, 1));
  // The code changes at one: both drop what they have, and the module with the old code serves neither.
  a.write(AT.CODE, loop(5));
  assert.equal(rounds(b, AT.CODE, 60), 300);
  assert.equal(rounds(a, AT.CODE, 60), 300);
});

test("a region that one vCPU has comes to another with the blocks that this one has not run", () => {
  const [a, b] = pair(compileOnSameThread({ instructions: INSTRUCTIONS, onFault }));
  // L: test cl, 1; jnz odd; add eax, 2; next: dec ecx; jnz L; hlt; odd: add eax, 1; jmp next
  const program = [0xf6, 0xc1, 1, 0x75, 8, 0x83, 0xc0, 2, 0xff, 0xc9, 0x75, 0xf4, HLT, 0x83, 0xc0, 1, 0xeb, 0xf6];
  a.write(AT.CODE, program);
  assert.equal(rounds(a, AT.CODE, 80, 500), 120);
  const made = count(a, "regionModules");
  // An odd round, then only even ones: `odd` is in the region, and this vCPU gets there by it.
  assert.equal(rounds(b, AT.CODE, 80, 30), 120);
  assert.ok(made >= 1 && count(b, "regions") >= 1);
  assert.equal(count(b, "regionsStale"), 0);
});

test("code that changes between a request and its answer is not run as it was", () => {
  const elsewhere = new Elsewhere();
  const rig = connected(elsewhere.connect, 2);
  for (let value = 1; value < 60; value++) {
    rig.write(AT.CODE, loop(value));
    assert.equal(rounds(rig, AT.CODE, 20), 20 * value);
    const changes = value % 3;
    if (changes === 0) rig.write(AT.CODE, loop(value + 1));
    elsewhere.work();
    if (changes === 1) rig.write(AT.CODE, loop(value + 1));
    assert.equal(rounds(rig, AT.CODE, 20), 20 * (changes === 2 ? value : value + 1));
    assert.equal(rounds(rig, AT.CODE, 20), 20 * (changes === 2 ? value : value + 1));
  }
  assert.ok(count(rig, "regionsStale") > 10);
  assert.ok(count(rig, "regions") > 10);
});

test("code that goes back to what it was gets its region back", () => {
  const elsewhere = new Elsewhere();
  const rig = connected(elsewhere.connect, 2);
  for (let time = 0; time < 20; time++) {
    rig.write(AT.CODE, loop(7));
    assert.equal(rounds(rig, AT.CODE, 30), 210);
    elsewhere.work();
    assert.equal(rounds(rig, AT.CODE, 30), 210);
  }
  assert.equal(count(rig, "regions"), 20);
  assert.equal(count(rig, "regionModules"), 1);
});

test("a module that is dropped is unreachable, and its numbers serve others", () => {
  const rig = connected(compileOnSameThread({ instructions: INSTRUCTIONS, onFault, modules: 3 }), 2);
  // Each program on a page of its own, so that nothing is dropped because code changes.
  const at = (n: number): number => AT.CODE + n * 0x1000;
  for (let n = 0; n < 12; n++) rig.write(at(n), loop(n + 1));
  for (let pass = 0; pass < 4; pass++) {
    for (let n = 0; n < 12; n++) assert.equal(rounds(rig, at(n), 40), 40 * (n + 1));
  }
  assert.equal(count(rig, "regionModulesKept"), 3);
  assert.ok(count(rig, "regionModulesDropped") >= 9);
  const table = (rig.engine as unknown as { exports: { handlers: WebAssembly.Table } }).exports.handlers;
  let filled = 0;
  for (let slot = table.length - 1; slot >= 0 && slot >= table.length - 4096; slot--)
    if (table.get(slot) !== null) filled++;
  assert.equal(filled, 3);
});

test("what is used stays when something has to go", () => {
  const rig = connected(compileOnSameThread({ instructions: INSTRUCTIONS, onFault, modules: 40 }), 2);
  const at = (n: number): number => AT.CODE + n * 0x1000;
  for (let n = 0; n < 100; n++) {
    rig.write(at(n), loop(n + 1));
    assert.equal(rounds(rig, at(n), 40), 40 * (n + 1));
    rounds(rig, at(0), 10);
  }
  // The first was made once.
  const before = count(rig, "regions");
  assert.equal(rounds(rig, at(0), 40), 40);
  assert.equal(count(rig, "regions"), before);
  assert.ok(before <= 101);
});

test("regions between which the guest goes to and fro are made one", () => {
  const rig = connected(compileOnSameThread({ instructions: INSTRUCTIONS, onFault }), 2, 1000);
  // f: add eax, 1, too often for a region that has it beside what is its own; ret
  const f = AT.CODE + 0x100;
  rig.write(f, [...Array.from({ length: 100 }, () => [0x83, 0xc0, 1]).flat(), 0xc3]);
  rig.write(AT.CODE + 0x80, [0xe8, 0x7b, 0, 0, 0, 0xff, 0xc9, 0x75, 0xf7, HLT]);
  assert.equal(rounds(rig, AT.CODE + 0x80, 4, 1), 400);
  // L: call f; dec ecx; jnz L; hlt
  rig.write(AT.CODE, [0xe8, 0xfb, 0, 0, 0, 0xff, 0xc9, 0x75, 0xf7, HLT]);
  assert.equal(rounds(rig, AT.CODE, 20), 2000);
  const apart = Number(rig.engine.statistics().regionInstructions);
  for (let pass = 0; pass < 40; pass++) assert.equal(rounds(rig, AT.CODE, 200, 1000), 20_000);
  const together = Number(rig.engine.statistics().regionInstructions) - apart;
  assert.ok(together > 102, `${together} instructions more`);
  const { regions, regionInstructions } = rig.engine.statistics();
  assert.equal(rounds(rig, AT.CODE, 3000, 2000), 300_000);
  const after = rig.engine.statistics();
  assert.deepEqual([after.regions, after.regionInstructions], [regions, regionInstructions]);
});

test("of a kernel's path that becomes hot as a whole one region is made, and few more where it is entered in the middle", () => {
  const compiler = new Elsewhere();
  const threshold = 50;
  const blocks = 20;
  // Blocks of: add eax, 1; jmp to the next. Then: dec ecx; jnz to the first; hlt
  const path = Array.from({ length: blocks }, () => [0x83, 0xc0, 1, 0xeb, 0]).flat();
  const back = -(path.length + 4);
  const code = [...path, 0xff, 0xc9, 0x75, back, HLT];
  const upper = 0xffffff8000000000n;
  const regions = (base: bigint): ((from: number, times: number) => number) => {
    const rig = connected(compiler.connect, threshold);
    rig.view.setBigUint64(AT.PML4 + 511 * 8, rig.view.getBigUint64(AT.PML4, true), true);
    rig.write(AT.CODE, code);
    return (from, times) => {
      rig.engine.setGpr(0, 0n);
      rig.engine.setGpr(1, BigInt(times));
      rig.engine.set(RIP, base + BigInt(AT.CODE + from * 5));
      while (rig.engine.run(count(rig, "regions") === 0 ? 300 : 1_000_000) !== EXIT.HLT);
      assert.equal(Number(rig.engine.gpr(0)), blocks * times - from);
      compiler.work();
      rig.engine.set(RIP, base + BigInt(AT.CODE + path.length + 4));
      rig.engine.run(1);
      return count(rig, "regions");
    };
  };
  const kernel = regions(upper);
  assert.equal(kernel(0, threshold * 2 - 1), 1);
  assert.equal(kernel(0, threshold * 10), 1);
  for (let n = 0; n < threshold * 4; n++) kernel(7, 1);
  const inTheMiddle = kernel(7, 1) - 1;
  assert.ok(inTheMiddle > 0 && inTheMiddle < 4, `${inTheMiddle} more`);
  assert.ok(regions(0n)(0, threshold * 2 - 1) > blocks / 2, "a program gets one wherever it is hot");
});

test("a guest that writes and runs new functions without end keeps within bounds", () => {
  const functions = Number(process.env.SKEP_TEST_FUNCTIONS ?? 1500);
  const modules = functions > 50_000 ? undefined : 16;
  const rig = connected(compileOnSameThread({ instructions: INSTRUCTIONS, onFault, modules }), 1);
  // F: mov eax, i; imul eax, eax, 3; add ebx, eax; dec ecx; jnz F; ret
  const program = [
    ...[0x4c, 0x89, 0xe7, 0x81, 0xe7, 0xff, 0x03, 0, 0], // L: mov rdi, r12; and edi, 0x3ff
    ...[0xc1, 0xe7, 0x06, 0x4c, 0x01, 0xf7], // shl edi, 6; add rdi, r14
    ...[0x4c, 0x89, 0xe0, 0x48, 0xc1, 0xe0, 0x08], // mov rax, r12; shl rax, 8
    ...[0x48, 0xba, 0xb8, 0, 0, 0, 0, 0x6b, 0xc0, 0x03, 0x48, 0x09, 0xd0, 0x48, 0x89, 0x07], // mov rdx, ...; or rax, rdx; mov [rdi], rax
    ...[0x48, 0xba, 0x01, 0xc3, 0xff, 0xc9, 0x75, 0xf2, 0xc3, 0x90, 0x48, 0x89, 0x57, 0x08], // mov rdx, ...; mov [rdi + 8], rdx
    ...[0xb9, 40, 0, 0, 0, 0xff, 0xd7], // mov ecx, 40; call rdi
    ...[0x49, 0xff, 0xc4, 0x4d, 0x39, 0xec], // inc r12; cmp r12, r13
  ];
  rig.write(AT.CODE, [...program, 0x75, 256 - program.length - 2, HLT]);
  rig.engine.setGpr(3, 0n);
  rig.engine.setGpr(12, 0n);
  rig.engine.setGpr(13, BigInt(functions));
  rig.engine.setGpr(14, BigInt(AT.DATA));
  rig.engine.set(RIP, AT.CODE);
  let reason: number = EXIT.BUDGET;
  for (let slice = 0; reason === EXIT.BUDGET; slice++) {
    assert.ok(slice < functions * 100);
    reason = rig.engine.run(100);
  }
  assert.equal(reason, EXIT.HLT);
  let sum = 0;
  for (let i = 0; i < functions; i++) sum = (sum + 120 * i) >>> 0;
  assert.equal(Number(rig.engine.gpr(3)), sum);
  assert.ok(count(rig, "regions") >= functions);
  assert.equal(count(rig, "regionsRefused"), 0);
  assert.ok(count(rig, "regionModulesKept") <= (modules ?? 1024));
  if (modules !== undefined) assert.ok(count(rig, "regionModulesDropped") > functions / 64);
  if (process.env.SKEP_TEST_FUNCTIONS !== undefined) {
    console.log(rig.engine.statistics(), process.memoryUsage(), process.resourceUsage().maxRSS);
  }
});
