// The newc writer against another reader (busybox cpio) where Debian's busybox can be had, and against the format's description.

import assert from "node:assert/strict";
import { test } from "node:test";
import { type CpioEntry, cpioArchive } from "../../src/boot/cpio.ts";

interface Parsed {
  readonly name: string;
  readonly fields: readonly number[];
  readonly data: Uint8Array;
}

/** A reader of our own, straight from the format's table. */
function parse(archive: Uint8Array): Parsed[] {
  const text = (from: number, to: number): string => new TextDecoder().decode(archive.subarray(from, to));
  const entries: Parsed[] = [];
  for (let at = 0; at < archive.length; ) {
    assert.equal(text(at, at + 6), "070701");
    const fields = Array.from({ length: 13 }, (_, i) => Number.parseInt(text(at + 6 + i * 8, at + 14 + i * 8), 16));
    const [size, nameSize] = [fields[6], fields[11]];
    assert.equal(archive[at + 110 + nameSize - 1], 0, "the name ends with NUL");
    const start = (at + 110 + nameSize + 3) & ~3;
    entries.push({
      name: text(at + 110, at + 110 + nameSize - 1),
      fields,
      data: archive.subarray(start, start + size),
    });
    at = (start + size + 3) & ~3;
  }
  return entries;
}

const entries: CpioEntry[] = [
  { kind: "symlink", path: "bin/sh", target: "busybox" },
  { kind: "file", path: "bin/busybox", mode: 0o755, data: new Uint8Array([1, 2, 3, 4, 5]) },
  { kind: "character", path: "dev/console", mode: 0o600, major: 5, minor: 1 },
  { kind: "block", path: "dev/vda", mode: 0o660, major: 254, minor: 0 },
  { kind: "directory", path: "tmp", mode: 0o1777 },
  { kind: "file", path: "empty", mode: 0o4755, data: new Uint8Array(0) },
];

test("entries are sorted, parents made, and each field is where the format has it", () => {
  const parsed = parse(cpioArchive(entries));
  assert.deepEqual(
    parsed.map((entry) => entry.name),
    ["bin", "bin/busybox", "bin/sh", "dev", "dev/console", "dev/vda", "empty", "tmp", "TRAILER!!!"],
  );
  const byName = new Map(parsed.map((entry) => [entry.name, entry]));
  const mode = (name: string): string => byName.get(name)?.fields[1].toString(8) ?? "";
  assert.equal(mode("bin"), "40755");
  assert.equal(mode("bin/busybox"), "100755");
  assert.equal(mode("bin/sh"), "120777");
  assert.equal(mode("dev/console"), "20600");
  assert.equal(mode("dev/vda"), "60660");
  assert.equal(mode("empty"), "104755");
  assert.equal(mode("tmp"), "41777");
  assert.deepEqual(byName.get("dev/vda")?.fields.slice(9, 11), [254, 0]);
  assert.deepEqual(byName.get("dev/console")?.fields.slice(9, 11), [5, 1]);
  assert.deepEqual([...(byName.get("bin/busybox")?.data ?? [])], [1, 2, 3, 4, 5]);
  assert.equal(new TextDecoder().decode(byName.get("bin/sh")?.data), "busybox");
  for (const entry of parsed) assert.equal(entry.fields[5], 0, "mtime");
  const inodes = parsed.slice(0, -1).map((entry) => entry.fields[0]);
  assert.equal(new Set(inodes).size, inodes.length, "inodes differ, or Linux would take files for hard links");
});

test("the same entries in any order give the same bytes", () => {
  assert.deepEqual(cpioArchive(entries), cpioArchive([...entries].reverse()));
});

test("every entry begins at a multiple of four", () => {
  for (let length = 0; length < 9; length++) {
    const path = "n".repeat(length + 1);
    const archive = cpioArchive([{ kind: "file", path, mode: 0o644, data: new Uint8Array(length).fill(7) }]);
    assert.equal(archive.length % 4, 0);
    assert.deepEqual(parse(archive)[0].data, new Uint8Array(length).fill(7));
  }
});

test("paths that leave the archive or clash are refused", () => {
  const file = (path: string): CpioEntry => ({ kind: "file", path, mode: 0o644, data: new Uint8Array(0) });
  for (const path of ["", "/etc", "a//b", "a/../b", "./a", "a/", "a\0b"]) {
    assert.throws(() => cpioArchive([file(path)]), /no path inside/, JSON.stringify(path));
  }
  assert.throws(() => cpioArchive([file("a"), file("a")]), /twice/);
  assert.throws(() => cpioArchive([file("a"), file("a/b")]), /no directory/);
});
