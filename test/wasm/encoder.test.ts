// The encoder against wabt, an independent reader of the format, and against the engine underneath, which runs what it wrote.

import assert from "node:assert/strict";
import { test } from "node:test";
import createWabt from "wabt";
import { ModuleBuilder } from "../../src/wasm/module.ts";
import { allOps, type ValType } from "../../src/wasm/ops.ts";
import { f32, f64, i32, i64, laneOp, op, select, type Val, v128 } from "../../src/wasm/value.ts";

const wabt = await createWabt();
const FEATURES = {
  threads: true,
  multi_memory: true,
  memory64: true,
  tail_call: true,
  simd: true,
  exceptions: true,
  bulk_memory: true,
};

function text(bytes: Uint8Array): string {
  const module = wabt.readWasm(bytes, { ...FEATURES, readDebugNames: true });
  module.generateNames();
  return module.toText({ foldExprs: false, inlineExport: false });
}

function instance(bytes: Uint8Array<ArrayBuffer>, imports: WebAssembly.Imports = {}): WebAssembly.Exports {
  return new WebAssembly.Instance(new WebAssembly.Module(bytes), imports).exports;
}

const SAMPLE: { readonly [type in Exclude<ValType, "funcref">]: (n: number) => Val } = {
  i32: (n) => i32(n),
  i64: (n) => i64(n),
  f32: (n) => f32(n),
  f64: (n) => f64(n),
  v128: (n) => v128(BigInt(n), 2n),
};

test("every operation is written as its name in the text format says", () => {
  for (const operation of allOps()) {
    const m = new ModuleBuilder();
    m.func("f", operation.params, [operation.result], (c) => {
      c.results([laneOp(operation.name, new Array(operation.lanes).fill(0), ...c.params)]);
    });
    assert.match(text(m.toBytes()), new RegExp(`\\b${operation.name.replaceAll(".", "\\.")}\\b`), operation.name);
  }
});

test("folded constants equal what the engine underneath computes", () => {
  const values = [0, 1, -1, 2, 5, 63, 0x7fffffff, -0x80000000, 12345678];
  for (const operation of allOps()) {
    const { params } = operation;
    if (operation.prefix !== 0 || params.some((type) => type !== "i32" && type !== "i64")) continue;
    for (const a of values) {
      for (const b of params.length === 2 ? values : [0]) {
        const operands = params.map((type, i) => SAMPLE[type as "i32"](i === 0 ? a : b));
        const folded = op(operation.name, ...operands).constant;
        if (folded === undefined) continue;
        const m = new ModuleBuilder();
        m.exportFunc(
          "f",
          m.func("f", params, [operation.result], (c) => c.results([op(operation.name, ...c.params)])),
        );
        const run = instance(m.toBytes()).f as (...args: (number | bigint)[]) => number | bigint;
        const given = params.map((type, i) => (type === "i64" ? BigInt(i === 0 ? a : b) : i === 0 ? a : b));
        assert.equal(run(...given), folded, `${operation.name} ${a} ${b}`);
      }
    }
  }
});

test("a wrong operand is an error when the module is built", () => {
  assert.throws(() => op("i32.add", i32(1), i64(1)), /operand 1 of i32.add must be i32, not i64/);
  assert.throws(() => op("i32.add", i32(1)), /takes 2 operands/);
  assert.throws(() => laneOp("i8x16.extract_lane_u", [], v128(0n, 0n)), /takes 1 lane immediates/);
  assert.throws(() => select(i64(1), i32(1), i32(2)), /condition of a select must be i32/);
  const m = new ModuleBuilder();
  const f = m.declare("f", ["i32"], ["i32"]);
  assert.throws(
    () => m.func("g", [], ["i32"], (c) => c.results([c.call(f, i64(1))])),
    /argument 0 of f of type i32 cannot take a i64/,
  );
  assert.throws(() => m.func("h", [], ["i32"], (c) => c.results([])), /gives 1 results, not 0/);
  assert.throws(() => m.toBytes(), /function f has no body/);
});

test("control flow, switches and locals compute what they say", () => {
  const m = new ModuleBuilder();
  const f = m.func("f", ["i32"], ["i32"], (c) => {
    const [n] = c.params;
    const sum = c.local("i32", 0);
    const i = c.local("i32", 0);
    c.block((end) => {
      c.loop((head) => {
        c.brIf(end, i.geU(n), "unlikely");
        c.switch(
          i.and(3),
          [
            [[0, 2], () => c.set(sum, sum.add(1))],
            [[1], () => c.set(sum, sum.add(10))],
          ],
          () => c.set(sum, sum.add(100)),
        );
        c.set(i, i.add(1));
        c.br(head);
      });
    });
    c.if(sum.eq(112), () => c.set(sum, sum.neg()), undefined, "likely");
    c.results([sum]);
  });
  m.exportFunc("f", f);
  const bytes = m.toBytes();
  const run = instance(bytes).f as (n: number) => number;
  assert.deepEqual([0, 1, 2, 3, 4, 8].map(run), [0, 1, 11, 12, -112, 224]);
  assert.match(text(bytes), /br_table/);
});

test("several memories: shared, 64-bit, loads and stores of all widths, bulk and atomic operations", () => {
  const m = new ModuleBuilder();
  const shared = m.importMemory("env", "shared", { min: 1, max: 4, shared: true });
  const wide = m.memory({ min: 1, is64: true });
  m.exportFunc(
    "f",
    m.func("f", ["i32"], ["i64"], (c) => {
      const [n] = c.params;
      c.st32(shared, 16, n);
      c.store(wide, 8, i64(8), shared.ld32u64(16).shl(8).or(1), 8);
      const old = c.atomicRmw("add", shared, 4, 16, i32(5));
      const seen = c.atomicCompareExchange(shared, 4, 16, n.add(5), i32(77));
      c.memoryFill(shared, 32, 0xab, 4);
      c.memoryCopy(shared, 40, shared, 32, 4);
      c.atomicFence();
      c.results([wide.ld64(i64(16)).add(old.zx()).add(seen.zx()).add(shared.ld8u64(43)).add(shared.ld32u64(16))]);
    }),
  );
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 4, shared: true });
  const bytes = m.toBytes();
  const run = instance(bytes, { env: { shared: memory } }).f as (n: number) => bigint;
  assert.equal(run(3), BigInt(3 * 256 + 1 + 3 + 8 + 0xab + 77));
  const dump = text(bytes);
  for (const part of [
    "i32.atomic.rmw.add",
    "i32.atomic.rmw.cmpxchg",
    "memory.fill",
    "memory.copy",
    "atomic.fence",
    "i64 1",
  ]) {
    assert.ok(dump.includes(part), part);
  }
});

test("calls, tail calls, tables and globals", () => {
  const m = new ModuleBuilder();
  const twice = m.importFunc("env", "twice", ["i32"], ["i32"]);
  const count = m.global("i64", 5n);
  const table = m.table(4);
  const pair = m.func("pair", ["i32"], ["i32", "i64"], (c) => c.results([c.params[0].add(1), c.getGlobal(count)]));
  const down = m.declare("down", ["i32"], ["i32"]);
  m.define(down, (c) => {
    const [n] = c.params;
    c.if(n.eqz(), () => c.ret(99));
    c.returnCall(down, n.sub(1));
    c.unreachable();
  });
  m.elementSegment(table, 2, [down]);
  m.exportFunc(
    "f",
    m.func("f", ["i32"], ["i64"], (c) => {
      const [first, second] = c.callMany(pair, [c.call(twice, c.params[0])]);
      c.setGlobal(count, second.add(1));
      const [last] = c.callIndirect(table, down.type, i32(2), [i32(100000)]);
      c.results([first.zx().add(second).add(last.zx())]);
    }),
  );
  const run = instance(m.toBytes(), { env: { twice: (n: number) => n * 2 } }).f as (n: number) => bigint;
  assert.equal(run(10), 21n + 5n + 99n);
  assert.equal(run(10), 21n + 6n + 99n);
});

test("exceptions pass their values to the handler", () => {
  const m = new ModuleBuilder();
  const tag = m.tag("fault", ["i32", "i64"]);
  const thrower = m.func("thrower", ["i32"], [], (c) => {
    c.if(c.params[0], () => c.throw(tag, c.params[0], 7n));
  });
  m.exportFunc(
    "f",
    m.func("f", ["i32"], ["i64"], (c) => {
      const result = c.local("i64", -1n);
      c.tryCatch(
        tag,
        () => c.invoke(thrower, c.params[0]),
        ([code, value]) => c.set(result, code.zx().add(value)),
      );
      c.results([result]);
    }),
  );
  const run = instance(m.toBytes()).f as (n: number) => bigint;
  assert.equal(run(0), -1n);
  assert.equal(run(3), 10n);
});

test("vector constants and lanes", () => {
  const m = new ModuleBuilder();
  m.exportFunc(
    "f",
    m.func("f", [], ["i64"], (c) => {
      const v = c.let(op("i64x2.add", v128(1n, 2n), v128(10n, 20n)));
      const shuffled = laneOp("i8x16.shuffle", [8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7], v, v);
      c.results([laneOp("i64x2.extract_lane", [0], shuffled)]);
    }),
  );
  assert.equal((instance(m.toBytes()).f as () => bigint)(), 22n);
});
