// ACPI tables: found by the walk that an operating system makes, right in their sums, and read without complaint by Intel's iasl.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { type FirmwareConfig, pciGsi, resolveConfig } from "../../src/firmware/config.ts";
import { buildDsdt } from "../../src/firmware/dsdt.ts";
import { buildFirmware, type Firmware } from "../../src/firmware/firmware.ts";
import { apicIds, firmwareConfig, hasTool, sumOf, text } from "./machine.ts";

const GIB = 1024 ** 3;
const CONFIGS: { [name: string]: FirmwareConfig } = {
  "one processor": firmwareConfig(),
  "300 processors, 8 GiB, legacy devices": firmwareConfig({
    memoryBytes: 8 * GIB,
    cpus: apicIds(300),
    i8042: true,
    vga: true,
    pmTimerBits: 24,
  }),
  "two sockets": firmwareConfig({ memoryBytes: 5 * GIB, cpus: apicIds(8), domains: [0, 0, 0, 0, 1, 1, 1, 1] }),
  "three sockets, 300 processors": firmwareConfig({
    cpus: apicIds(300),
    domains: apicIds(300).map((n) => Math.floor(n / 100)),
  }),
};

/** Follows RSDP and XSDT as an operating system does. */
function walk(firmware: Firmware): Map<string, Uint8Array> {
  const at = (gpa: number): Uint8Array => {
    const write = firmware.writes.find((w) => w.gpa === gpa);
    assert.ok(write, `nothing was placed at ${gpa.toString(16)}`);
    return write.bytes;
  };
  const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const tables = new Map<string, Uint8Array>();
  const rsdp = at(firmware.rsdp);
  assert.equal(text(rsdp.subarray(0, 8)), "RSD PTR ");
  assert.equal(sumOf(rsdp.subarray(0, 20)), 0);
  assert.equal(sumOf(rsdp), 0);
  tables.set("RSDT", at(view(rsdp).getUint32(16, true)));
  const xsdt = at(Number(view(rsdp).getBigUint64(24, true)));
  tables.set("XSDT", xsdt);
  const rsdt = tables.get("RSDT") as Uint8Array;
  for (let i = 0; i < (xsdt.length - 36) / 8; i++) {
    const gpa = Number(view(xsdt).getBigUint64(36 + i * 8, true));
    assert.equal(view(rsdt).getUint32(36 + i * 4, true), gpa);
    tables.set(text(at(gpa).subarray(0, 4)), at(gpa));
  }
  const fadt = view(tables.get("FACP") as Uint8Array);
  assert.equal(fadt.getBigUint64(140, true), BigInt(fadt.getUint32(40, true)));
  tables.set("DSDT", at(fadt.getUint32(40, true)));
  tables.set("FACS", at(fadt.getUint32(36, true)));
  return tables;
}

for (const [name, config] of Object.entries(CONFIGS)) {
  test(`${name}: every table is found, has its length and sums to zero`, () => {
    const tables = walk(buildFirmware(config));
    assert.deepEqual(
      [...tables.keys()].sort(),
      [
        ...["APIC", "DSDT", "FACP", "FACS", "HPET", "MCFG", "RSDT", "SPCR", "XSDT"],
        ...(config.domains === undefined ? [] : ["SRAT"]),
      ].sort(),
    );
    for (const [signature, bytes] of tables) {
      assert.equal(text(bytes.subarray(0, 4)), signature);
      assert.equal(new DataView(bytes.buffer, bytes.byteOffset).getUint32(4, true), bytes.length, signature);
      if (signature !== "FACS") assert.equal(sumOf(bytes), 0, signature);
    }
  });

  test(`${name}: nothing that was placed overlaps, and tables lie in memory that the map keeps`, () => {
    const firmware = buildFirmware(config);
    const sorted = [...firmware.writes].sort((a, b) => a.gpa - b.gpa);
    sorted.reduce((end, write) => {
      assert.ok(write.gpa >= end, `${write.gpa.toString(16)} overlaps what is before it`);
      return write.gpa + write.bytes.length;
    }, 0);
    for (const { gpa, bytes } of sorted) {
      if (gpa < 0x500) continue; // the BIOS data area lies in what the map calls RAM, as on every PC
      const home = firmware.e820.find((e) => e.base <= gpa && gpa + bytes.length <= e.base + e.length);
      assert.ok(home !== undefined && home.type !== 1, `${gpa.toString(16)} lies in no reserved range`);
    }
  });
}

test("FADT registers are those of the power-management device", () => {
  const fadt = walk(buildFirmware(firmwareConfig({ pmBase: 0x1800 }))).get("FACP") as Uint8Array;
  const view = new DataView(fadt.buffer, fadt.byteOffset);
  assert.equal(view.getUint16(46, true), 9);
  assert.equal(view.getUint32(48, true), 0);
  assert.equal(view.getUint32(56, true), 0x1800);
  assert.equal(view.getUint32(64, true), 0x1804);
  assert.equal(view.getUint32(76, true), 0x1808);
  assert.equal(view.getUint32(80, true), 0x180c);
  assert.deepEqual([...fadt.subarray(88, 94)], [4, 2, 0, 4, 4, 0]);
  assert.equal(view.getUint32(112, true) & (1 << 10), 1 << 10);
  assert.deepEqual([...fadt.subarray(116, 129)], [1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0, 6]);
});

test("MADT gives x2APIC entries from id 255 up, and LINT1 as NMI for both kinds", () => {
  const madt = walk(buildFirmware(firmwareConfig({ cpus: apicIds(258) }))).get("APIC") as Uint8Array;
  const seen: Uint8Array[][] = Array.from({ length: 11 }, () => []);
  for (let at = 44; at < madt.length; at += madt[at + 1]) {
    seen[madt[at]].push(madt.subarray(at, at + madt[at + 1]));
  }
  assert.equal(seen[0].length, 255);
  assert.deepEqual(
    seen[9].map((e) => e[4] | (e[5] << 8)),
    [255, 256, 257],
  );
  assert.deepEqual([...seen[2][0]], [2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
  assert.deepEqual([...seen[2][1]], [2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0]);
  assert.deepEqual([...seen[4][0]], [4, 6, 0xff, 0, 0, 1]);
  assert.deepEqual([...seen[10][0]], [10, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
});

test("SRAT divides processors and memory among sockets, on both sides of the PCI hole", () => {
  const cpus = [0, 1, 2, 3, 0x100, 0x101];
  const config = firmwareConfig({ memoryBytes: 7 * GIB, cpus, domains: [0, 0, 1, 1, 2, 2] });
  const srat = walk(buildFirmware(config)).get("SRAT") as Uint8Array;
  const view = new DataView(srat.buffer, srat.byteOffset, srat.length);
  const processors: number[][] = [];
  const memory: number[][] = [];
  for (let at = 48; at < srat.length; at += srat[at + 1]) {
    if (srat[at] === 0) processors.push([srat[at + 3], srat[at + 2], view.getUint32(at + 4, true)]);
    else if (srat[at] === 2)
      processors.push([view.getUint32(at + 8, true), view.getUint32(at + 4, true), view.getUint32(at + 12, true)]);
    else
      memory.push([
        view.getUint32(at + 2, true),
        Number(view.getBigUint64(at + 8, true)),
        Number(view.getBigUint64(at + 16, true)),
        view.getUint32(at + 28, true),
      ]);
  }
  assert.deepEqual(
    processors,
    cpus.map((id, n) => [id, n >> 1, 1]),
  );
  const part = Math.round((7 * GIB) / 3 / (16 << 20)) * (16 << 20);
  const second = Math.round((14 * GIB) / 3 / (16 << 20)) * (16 << 20);
  assert.deepEqual(memory, [
    [0, 0, part, 1],
    [1, part, 3 * GIB - part, 1],
    [1, 4 * GIB, second - 3 * GIB, 1],
    [2, 4 * GIB + second - 3 * GIB, 7 * GIB - second, 1],
  ]);
});

const haveIasl = await hasTool("iasl");
const iaslOptions = { skip: haveIasl ? false : "iasl is not installed (Debian package acpica-tools)" };
const scratch = mkdtempSync(join(tmpdir(), "skep-acpi-"));
after(() => rmSync(scratch, { recursive: true, force: true }));

function iasl(...args: string[]): string {
  const run = spawnSync("iasl", args, { cwd: scratch, encoding: "utf8", timeout: 60_000 });
  return run.stdout + run.stderr;
}

for (const [name, config] of Object.entries(CONFIGS)) {
  test(`${name}: iasl takes each table apart and puts it together as the same bytes`, iaslOptions, () => {
    for (const [signature, bytes] of walk(buildFirmware(config))) {
      writeFileSync(join(scratch, `${signature}.dat`), bytes);
      const taken = iasl("-d", `${signature}.dat`);
      assert.doesNotMatch(taken, /error|warning|invalid|incorrect|could not/i, signature);
      const source = readFileSync(join(scratch, `${signature}.dsl`), "utf8");
      assert.doesNotMatch(source, /error|warning|should be|invalid/i, signature);
      // Without optimisation, so that the compiler keeps the name paths that the table has.
      const built = iasl("-oa", "-p", `${signature}-again`, `${signature}.dsl`);
      assert.match(built, /Compilation successful. 0 Errors, 0 Warnings/, `${signature}: ${built}`);
      const again = readFileSync(join(scratch, `${signature}-again.aml`));
      // The header's checksum and creator fields are iasl's own.
      const bodyStart = signature === "FACS" ? 0 : 36;
      assert.deepEqual(new Uint8Array(again.subarray(bodyStart)), bytes.slice(bodyStart), signature);
    }
  });
}

test("the disassembled DSDT says what the machine has", iaslOptions, () => {
  writeFileSync(join(scratch, "said.dat"), buildDsdt(resolveConfig(CONFIGS["one processor"])));
  iasl("-d", "said.dat");
  const source = readFileSync(join(scratch, "said.dsl"), "utf8");
  for (const wanted of [
    /Device \(C000\)/,
    /Name \(_HID, EisaId \("PNP0A08"\)/,
    /Name \(\\_S5, Package/,
    /EisaId \("PNP0501"\)/,
    /EisaId \("PNP0B00"\)/,
    /ToUUID \("33db4d5b-1ff7-401c-9657-7441c03dd766"\)/,
    /IO \(Decode16,\s+0x03F8,\s+\/\/ Range Minimum\s+0x03F8,/,
  ]) {
    assert.match(source, wanted);
  }
});

const haveAcpiexec = await hasTool("acpiexec");
test("ACPICA's interpreter loads the DSDT and evaluates its methods", {
  skip: haveAcpiexec ? false : "acpiexec is not installed (Debian package acpica-tools)",
}, () => {
  writeFileSync(join(scratch, "run.dat"), buildDsdt(resolveConfig(CONFIGS["one processor"])));
  const hex = (bytes: number[]) => `(${bytes.map((b) => b.toString(16).padStart(2, "0")).join(" ")})`;
  const pciUuid = hex([0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f, 0x1c, 0x40, 0x96, 0x57, 0x74, 0x41, 0xc0, 0x3d, 0xd7, 0x66]);
  const otherUuid = hex(new Array(16).fill(0x11));
  const capabilities = hex([0, 0, 0, 0, 0, 0, 0, 0, 0x3f, 0, 0, 0]);
  const commands = [
    "execute \\_S5",
    "execute \\_SB.PCI0._PRT",
    `execute \\_SB.PCI0._OSC ${pciUuid} 1 3 ${capabilities}`,
    `execute \\_SB.PCI0._OSC ${pciUuid} 2 3 ${capabilities}`,
    `execute \\_SB.PCI0._OSC ${otherUuid} 1 3 ${capabilities}`,
  ];
  const run = spawnSync("acpiexec", ["-b", commands.join(";"), "run.dat"], {
    cwd: scratch,
    encoding: "utf8",
    timeout: 60_000,
  });
  const [, s5, prt, granted, newer, foreign] = run.stdout.split(/^Evaluating /m);
  assert.match(s5, /Contains 4 Elements:\s+\[Integer\] = 0*5/);
  assert.match(prt, /Contains 128 Elements/);
  // SHPC (bit 1) is not given, and the status says that something was masked.
  assert.match(granted, /10 00 00 00 00 00 00 00 3D 00 00 00/);
  assert.match(newer, /18 00 00 00 00 00 00 00 3D 00 00 00/);
  assert.match(foreign, /04 00 00 00 00 00 00 00 3F 00 00 00/);
});

test("interrupt pins of one slot take different inputs, and so do the first pins of neighbours", () => {
  for (let slot = 0; slot < 32; slot++) {
    assert.deepEqual(new Set([0, 1, 2, 3].map((pin) => pciGsi(slot, pin))), new Set([16, 17, 18, 19]));
    assert.notEqual(pciGsi(slot, 0), pciGsi(slot + 1, 0));
  }
});
