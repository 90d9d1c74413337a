// Every field of every part of a machine is saved, or declared as derived: the machine is searched for whatever has a schema.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { engineModule } from "../../src/cpu/standard-module.ts";
import { webHost } from "../../src/host/host.ts";
import { MemoryBlockStorage } from "../../src/host/memory-block.ts";
import { machineConfig } from "../../src/machine/config.ts";
import { Machine } from "../../src/machine/machine.ts";
import { SeededHost } from "../../src/machine/seeded-host.ts";
import { HostClock } from "../../src/vmm/clock.ts";
import { type Stateful, saveState, uncoveredFields } from "../../src/vmm/state.ts";
import { traceTo } from "../../src/vmm/trace.ts";
import { ROOT, sourceFiles } from "../docs/sources.ts";

/** Parts that no machine has by default. */
const ELSEWHERE: ReadonlySet<string> = new Set(["pci-msi"]);
/** Objects that are no state of the machine, whatever numbers they hold, by class: why. */
const STATELESS: { readonly [name: string]: string } = {
  HostClock: "the machine's section has the time",
  MemoryBlockStorage: "contents of disks are apart",
  Timer: "its owner has the deadline, and arms it after a restore",
  TimerQueue: "follows from its timers",
  GuestRam: "RAM is apart",
  TranslateEngine: "its section is made by hand, from the vCPU's memory",
  Vm: "speed measured, for the length of slices",
  VcpuStateMachine: "what the host does with a vCPU; idle when it is saved",
  Rate: "a constant",
};
/** Sections that are made by hand, of what is no object with fields. */
const BY_HAND: ReadonlySet<string> = new Set(["vcpu", "machine"]);

function makeMachine(): Machine {
  const clock = new HostClock(webHost.now);
  return new Machine({
    config: machineConfig({ engine: "interpret", memory: "32M", serialPorts: 2, debugExit: true }),
    disks: [{ storage: new MemoryBlockStorage(new Uint8Array(1 << 20)), serial: "test" }],
    clock,
    host: new SeededHost({ ...webHost, engineModule: engineModule() }, 1),
    trace: traceTo([], () => undefined),
    onSerial: () => undefined,
    onConsole: () => undefined,
    onRoom: () => undefined,
  });
}

function isStateful(value: object): value is Stateful {
  const { schema } = value as Partial<Stateful>;
  return typeof schema === "object" && typeof schema.kind === "string" && Array.isArray(schema.derived);
}

/** All objects that can be reached through fields, by the first way that leads to each. */
function reachableObjects(root: object): Map<object, string> {
  const found = new Map<object, string>();
  const waiting: [object, string][] = [[root, "machine"]];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const [value, way] = next;
    if (found.has(value) || ArrayBuffer.isView(value) || value instanceof WebAssembly.Memory) continue;
    found.set(value, way);
    const inner: [string, unknown][] =
      value instanceof Map || value instanceof Set
        ? Array.from(value.values(), (item, n) => [String(n), item])
        : Object.entries(value);
    for (const [name, item] of inner)
      if (typeof item === "object" && item !== null) waiting.push([item, `${way}.${name}`]);
  }
  return found;
}

const machine = makeMachine();
const reachable = reachableObjects(machine);
const objects = new Map<Stateful, string>();
for (const [object, way] of reachable) if (isStateful(object)) objects.set(object, way);
const kinds = new Set([...objects.keys()].map(({ schema }) => schema.kind));

test("no field of a part is forgotten", () => {
  const forgotten = [...objects].flatMap(([object, way]) =>
    uncoveredFields(object).map((name) => `${way}.${name} (schema ${object.schema.kind})`),
  );
  assert.deepEqual(forgotten, []);
});

test("no field is both saved and derived, and each can be saved", () => {
  for (const [object, way] of objects) {
    const { fields, derived } = object.schema;
    assert.deepEqual(
      derived.filter((name) => name in fields),
      [],
      way,
    );
    assert.doesNotThrow(() => saveState(object), way);
  }
});

test("the machine's list of parts, with what they contain, is everything that has state", () => {
  const covered = new Set<Stateful>();
  const cover = (part: Stateful): void => {
    covered.add(part);
    for (const [name, type] of Object.entries(part.schema.fields)) {
      const value = (part as unknown as { [field: string]: unknown })[name];
      if (typeof type !== "object") continue;
      if ("section" in type) cover(value as Stateful);
      else if ("array" in type && typeof type.array === "object" && "section" in type.array)
        for (const item of value as Stateful[]) cover(item);
    }
  };
  for (const part of machine.pc.parts().values()) cover(part);
  for (const vcpu of machine.pc.vm.vcpus) for (const part of [vcpu, vcpu.apic]) cover(part);
  const missing = [...objects].filter(([object]) => !covered.has(object)).map(([, way]) => way);
  assert.deepEqual(missing, []);
});

test("an object without a schema has no state, or a reason", () => {
  const plain = new Set(["Object", "Array", "Map", "Set"]);
  const suspicious = [...reachable].flatMap(([object, way]) => {
    const name = object.constructor?.name ?? "Object";
    if (isStateful(object) || plain.has(name) || name in STATELESS) return [];
    return Object.entries(object)
      .filter(([, value]) => ["number", "boolean", "bigint", "string"].includes(typeof value))
      .map(([field]) => `${way}.${field} (class ${name})`);
  });
  assert.deepEqual(suspicious, []);
});

test("every schema in the sources is met in the machine", () => {
  const declared = sourceFiles().flatMap(({ path }) => {
    const text = readFileSync(join(ROOT, "src", path), "utf8");
    return Array.from(text.matchAll(/\bkind: "([^"]+)",\s*version: \d/g), (match) => match[1]);
  });
  assert.ok(declared.length > 15, "the schemas were not found");
  const unmet = declared.filter((kind) => !kinds.has(kind) && !ELSEWHERE.has(kind) && !BY_HAND.has(kind));
  assert.deepEqual(unmet, []);
  // Kinds name the form of a section, so no two schemas share one.
  assert.deepEqual(
    declared.filter((kind, n) => declared.indexOf(kind) !== n),
    [],
  );
});
