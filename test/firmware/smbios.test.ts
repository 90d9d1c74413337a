// SMBIOS: an independent reading of the structures, and Debian's dmidecode where it is installed.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type FirmwareConfig, resolveConfig } from "../../src/firmware/config.ts";
import { buildFirmware } from "../../src/firmware/firmware.ts";
import { buildSmbiosEntry, buildSmbiosStructures } from "../../src/firmware/smbios.ts";
import { apicIds, firmwareConfig, hasTool, sumOf, text } from "./machine.ts";

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;
const UUID = Uint8Array.from({ length: 16 }, (_, i) => i * 17);

interface Structure {
  readonly type: number;
  readonly handle: number;
  readonly formatted: DataView;
  readonly strings: string[];
}

function parse(bytes: Uint8Array): Structure[] {
  const out: Structure[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = bytes[at + 1];
    assert.ok(length >= 4);
    const strings: string[] = [];
    let end = at + length;
    while (bytes[end] !== 0) {
      const stop = bytes.indexOf(0, end);
      strings.push(text(bytes.subarray(end, stop)));
      end = stop + 1;
    }
    const next = strings.length === 0 ? end + 2 : end + 1;
    const formatted = new DataView(bytes.buffer, bytes.byteOffset + at, length);
    out.push({ type: bytes[at], handle: formatted.getUint16(2, true), formatted, strings });
    at = next;
  }
  return out;
}

const structures = (changes: Partial<FirmwareConfig> = {}) =>
  buildSmbiosStructures(resolveConfig(firmwareConfig(changes)));

test("the entry point sums to zero and leads to the structures", () => {
  const firmware = buildFirmware(firmwareConfig());
  const entry = firmware.writes.find((w) => text(w.bytes.subarray(0, 5)) === "_SM3_");
  assert.ok(entry);
  assert.ok(entry.gpa >= 0xf0000 && entry.gpa < 0x100000 && entry.gpa % 16 === 0);
  assert.equal(sumOf(entry.bytes), 0);
  const address = Number(new DataView(entry.bytes.buffer).getBigUint64(16, true));
  assert.deepEqual(firmware.writes.find((w) => w.gpa === address)?.bytes, structures());
});

test("types, handles and strings", () => {
  const all = parse(structures({ memoryBytes: 8 * GIB }));
  assert.deepEqual(
    all.map((s) => s.type),
    [0, 1, 3, 4, 16, 17, 19, 19, 32, 127],
  );
  assert.equal(new Set(all.map((s) => s.handle)).size, all.length);
  for (const type of [0, 1, 3]) assert.equal(all.find((s) => s.type === type)?.strings[0], "skep");
});

test("memory is given in MiB, in KiB where it is no whole number of those, and in the extended field from 32 GiB", () => {
  const device = (memoryBytes: number) => {
    const found = parse(structures({ memoryBytes })).find((s) => s.type === 17);
    assert.ok(found);
    return [found.formatted.getUint16(12, true), found.formatted.getUint32(28, true)];
  };
  assert.deepEqual(device(512 * MIB), [512, 0]);
  assert.deepEqual(device(4 * MIB + 4096), [0x8000 | 4100, 0]);
  assert.deepEqual(device(64 * GIB), [0x7fff, 65536]);
});

test("dmidecode reads the tables", {
  skip: (await hasTool("dmidecode")) ? false : "dmidecode is not installed (Debian package dmidecode)",
}, () => {
  const directory = mkdtempSync(join(tmpdir(), "skep-smbios-"));
  try {
    const body = structures({ memoryBytes: 8 * GIB, cpus: apicIds(4), uuid: UUID });
    // The dump format: the entry point, then the structures at the address that it gives.
    const dump = new Uint8Array(32 + body.length);
    dump.set(buildSmbiosEntry(32, body.length));
    dump.set(body, 32);
    writeFileSync(join(directory, "dump"), dump);
    const run = spawnSync("dmidecode", ["--from-dump", join(directory, "dump")], { encoding: "utf8", timeout: 20_000 });
    assert.equal(run.status, 0, run.stderr);
    assert.doesNotMatch(run.stdout + run.stderr, /invalid|wrong|bad|broken|out of spec|truncated/i);
    for (const wanted of [
      /SMBIOS 3\.0\.0 present/,
      /Manufacturer: skep/,
      /UUID: 00112233-4455-6677-8899-aabbccddeeff/,
      /Size: 8 GB|Size: 8192 MB/,
      /Maximum Capacity: 8 GB/,
      /Core Count: 4/,
      /Thread Count: 4/,
      /System is a virtual machine/,
      /Ending Address: 0x0023FFFFFFF/,
      /Status: No errors detected/,
      /End Of Table/,
    ]) {
      assert.match(run.stdout, wanted);
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
