// How many processors, how they are grouped, and what CPUID tells the guest of it, read as operating systems do (SDM Vol. 3A 9.9.3: shifts from
// leaf 0BH give thread, core and package; leaf 4 and leaf 1 must agree).

import assert from "node:assert/strict";
import { test } from "node:test";
import { cpuidTable } from "../../src/cpu/cpuid-leaves.ts";
import { apicIdOf } from "../../src/cpu/topology.ts";
import { CPUID_ENTRY, CPUID_HEADER } from "../../src/isa/cpuid-table.ts";
import { machineConfig } from "../../src/machine/config.ts";

function leaves(apicId: number, request: string): (leaf: number, subleaf: number) => number[] {
  const { cpu, cpus, topology } = machineConfig({ cpus: request });
  const bytes = cpuidTable(cpu, { apicId, cpus, topology, tscHz: 1e9, crystalHz: 25e6 });
  const view = new DataView(bytes.buffer);
  return (leaf, subleaf) => {
    for (let n = 0; n < view.getUint32(CPUID_HEADER.COUNT, true); n++) {
      const word = (at: number): number => view.getUint32(CPUID_HEADER.SIZE + n * CPUID_ENTRY.SIZE + at, true);
      if (word(CPUID_ENTRY.LEAF) !== leaf) continue;
      if (word(CPUID_ENTRY.SUBLEAF) !== subleaf && word(CPUID_ENTRY.SUBLEAF) !== 0xffffffff) continue;
      return [CPUID_ENTRY.EAX, CPUID_ENTRY.EBX, CPUID_ENTRY.ECX, CPUID_ENTRY.EDX].map(word);
    }
    return [0, 0, 0, 0];
  };
}

for (const [request, sockets, cores, threads] of [
  ["1", 1, 1, 1],
  ["4", 1, 4, 1],
  ["8,sockets=2,cores=2,threads=2", 2, 2, 2],
  ["8,threads=2", 1, 4, 2],
  ["6,cores=3", 2, 3, 1],
  ["12,sockets=2", 2, 6, 1],
  ["18,sockets=2,threads=3", 2, 3, 3],
  ["64", 1, 64, 1],
  ["300", 1, 300, 1],
  ["258,sockets=2", 2, 129, 1],
  ["512", 1, 512, 1],
] as const) {
  test(`--cpus ${request}`, () => {
    const { cpus, topology } = machineConfig({ cpus: request });
    assert.deepEqual(topology, { sockets, cores, threads });
    assert.equal(cpus, sockets * cores * threads);
    const ids = Array.from({ length: cpus }, (_, n) => apicIdOf(topology, n));
    assert.equal(new Set(ids).size, cpus);
    ids.forEach((id, n) => {
      const cpuid = leaves(id, request);
      for (const leaf of [0xb, 0x1f]) {
        const [threadShift, threadCount, threadType, x2apicId] = cpuid(leaf, 0);
        const [packageShift, packageCount, coreType] = cpuid(leaf, 1);
        assert.equal(x2apicId, id);
        assert.deepEqual([(threadType >> 8) & 0xff, (coreType >> 8) & 0xff], [1, 2]);
        assert.deepEqual([threadCount, packageCount], [threads, cores * threads]);
        assert.equal(id & ((1 << threadShift) - 1), n % threads);
        assert.equal((id >> threadShift) & ((1 << (packageShift - threadShift)) - 1), Math.floor(n / threads) % cores);
        assert.equal(id >> packageShift, Math.floor(n / (threads * cores)));
      }
      const [, ebx, , edx] = cpuid(1, 0);
      assert.equal(ebx >>> 24, id & 0xff);
      assert.equal(Boolean(edx & (1 << 28)), cores * threads > 1, "HTT");
      if (cores * threads > 1)
        assert.equal((ebx >> 16) & 0xff, Math.min(1 << cpuid(0xb, 1)[0], 128), "ids of a package");
      const [eax] = cpuid(4, 0);
      assert.equal(((eax >>> 14) & 0xfff) + 1, 1 << cpuid(0xb, 0)[0], "ids of a core");
      const coreIds = 1 << (cpuid(0xb, 1)[0] - cpuid(0xb, 0)[0]);
      assert.equal((eax >>> 26) + 1, Math.min(coreIds, 64), "ids of cores, as far as six bits go");
    });
  });
}

test("what cannot be grouped is refused in one line", () => {
  for (const [request, message] of [
    ["8,sockets=3", /8 CPUs cannot be grouped as sockets=3/],
    ["8,sockets=2,cores=2", /8 CPUs cannot be grouped as sockets=2,cores=2/],
    ["8,dies=2", /"dies=2" is no part of a CPU topology/],
    ["8,cores", /"cores" is no part/],
    ["8,cores=0", /there is at least one of each/],
    ["8,cores=4,cores=4", /cores is given twice/],
    ["0", /"0" is no number of CPUs/],
    ["1.5", /"1.5" is no number of CPUs/],
  ] as const)
    assert.throws(() => machineConfig({ cpus: request }), message);
});

test("APIC ids from 255 up: x2APIC from the start, and devices reach them, unless the request says otherwise", () => {
  const few = machineConfig({ cpus: 254 });
  assert.deepEqual([few.x2apicIds, few.cpu.features.has("kvm_msi_ext_dest_id")], [false, false]);
  for (const cpus of [256, "258,sockets=2", "130,sockets=130"]) {
    const { x2apicIds, cpu } = machineConfig({ cpus });
    const many = cpus !== "130,sockets=130";
    assert.deepEqual([x2apicIds, cpu.features.has("kvm_msi_ext_dest_id")], [many, many], String(cpus));
  }
  const without = machineConfig({ cpus: 300, cpu: "x86-64-v2,-kvm_msi_ext_dest_id" });
  assert.deepEqual([without.x2apicIds, without.cpu.features.has("kvm_msi_ext_dest_id")], [true, false]);
  assert.equal(machineConfig({ cpu: "x86-64-v2,+kvm_msi_ext_dest_id" }).cpu.features.has("kvm_msi_ext_dest_id"), true);
  assert.throws(() => machineConfig({ cpus: 300, cpu: "x86-64-v2,-x2apic" }), /ids from 255 up need a CPU with x2apic/);
  assert.throws(() => machineConfig({ cpus: 65, threads: "one" }), /65 CPUs are more than the 64 that one thread/);
  assert.throws(() => machineConfig({ cpus: 65, deterministic: true }), /65 CPUs are more than the 64 that one thread/);
});

test("KVM's leaves stand behind skep's own where there is a feature to tell, and only there", () => {
  const text = (words: readonly number[]): string =>
    String.fromCharCode(...words.slice(1).flatMap((word) => [0, 8, 16, 24].map((shift) => (word >>> shift) & 0xff)));
  const few = leaves(0, "4");
  assert.equal(text(few(0x40000000, 0)), "SkepSkepSkep");
  assert.deepEqual(few(0x40000100, 0), [0, 0, 0, 0]);
  const many = leaves(0, "300");
  assert.equal(text(many(0x40000000, 0)), "SkepSkepSkep");
  assert.equal(many(0x40000100, 0)[0], 0x40000101);
  assert.equal(text(many(0x40000100, 0)), "KVMKVMKVM\0\0\0");
  assert.deepEqual(many(0x40000101, 0), [1 << 15, 0, 0, 0]);
});
