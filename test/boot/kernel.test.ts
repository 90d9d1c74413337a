// Any file whatever is either loaded or refused with a BootError; and the real kernel of Debian.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { BootError } from "../../src/boot/errors.ts";
import type { BootImage } from "../../src/boot/image.ts";
import { loadKernel } from "../../src/boot/kernel.ts";
import { E820 } from "../../src/firmware/e820.ts";
import { RecordWriter } from "../../src/firmware/record.ts";
import { bootConfig, bzImage, debianKernel, elf, multibootHeader, pvhNote } from "./samples.ts";

const body = new Uint8Array(64).fill(0x90);
const withHeader = new RecordWriter().bytes(multibootHeader(3)).bytes(body).finish();
const SAMPLES: { readonly [name: string]: Uint8Array } = {
  bzImage: bzImage(),
  "PVH ELF64": elf({ body, notes: pvhNote(0x100000) }),
  "PVH ELF32": elf({ bits: 32, body, notes: pvhNote(0x100000, false) }),
  "Multiboot ELF32": elf({ bits: 32, body: withHeader }),
  "Multiboot flat": new RecordWriter()
    .bytes(multibootHeader(0x10000, 0x100000, 0x100000, 0x100080, 0x101000, 0x100020))
    .zeros(96)
    .finish(),
};
const CONFIG = bootConfig({ initrd: new Uint8Array(100), commandLine: "quiet" });

/** Loads or refuses; never anything else, and never outside of RAM. */
function attempt(file: Uint8Array): BootImage | undefined {
  try {
    const image = loadKernel(file, CONFIG);
    const ram = CONFIG.e820.filter((e) => e.type === E820.ram);
    for (const { gpa, length } of [
      ...image.writes.map((w) => ({ gpa: w.gpa, length: w.bytes.length })),
      ...image.zeros,
    ]) {
      assert.ok(ram.some((e) => e.base <= gpa && gpa + length <= e.base + e.length));
    }
    return image;
  } catch (error) {
    if (!(error instanceof BootError)) throw error;
    assert.doesNotMatch(error.message, /\n/);
    return undefined;
  }
}

for (const [name, sample] of Object.entries(SAMPLES)) {
  test(`${name}: recognised, and refused when cut short at any length`, () => {
    assert.ok(attempt(sample));
    fc.assert(
      fc.property(fc.integer({ min: 0, max: sample.length - 1 }), (length) => {
        assert.equal(attempt(sample.slice(0, length)), undefined);
      }),
      { numRuns: 500 },
    );
  });

  test(`${name}: with bytes changed it is loaded or refused`, () => {
    const change = fc.tuple(
      fc.nat(Math.min(sample.length, 0x280) - 1),
      fc.oneof(fc.constantFrom(0, 0xff, 0x7f, 0x80), fc.nat(255)),
    );
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 12 }), (changes) => {
        const file = sample.slice();
        for (const [at, value] of changes) file[at] = value;
        attempt(file);
      }),
      { numRuns: 2000 },
    );
  });
}

test("random bytes are no kernel, whatever magic they start with", () => {
  const magics = [
    [],
    [0x7f, 0x45, 0x4c, 0x46],
    [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1],
    [0x7f, 0x45, 0x4c, 0x46, 1, 1, 1],
    [0x02, 0xb0, 0xad, 0x1b],
  ];
  fc.assert(
    fc.property(fc.constantFrom(...magics), fc.uint8Array({ maxLength: 600 }), (magic, rest) => {
      attempt(Uint8Array.from([...magic, ...rest]));
    }),
    { numRuns: 2000 },
  );
});

test("files that people pass by mistake are named", () => {
  const message = (file: Uint8Array | number[]): string => {
    try {
      loadKernel(Uint8Array.from(file), CONFIG);
    } catch (error) {
      if (error instanceof BootError) return error.message;
    }
    return "";
  };
  assert.match(message([]), /empty/);
  assert.match(message([0x1f, 0x8b, 8, 0]), /gzip/);
  assert.match(message([...Buffer.from("!<arch>\ndebian-binary")]), /package or archive/);
  assert.match(message([...Buffer.from("070701")]), /cpio/);
  assert.match(message([0x4d, 0x5a, 0, 0]), /EFI/);
  assert.match(message([1, 2, 3]), /no kernel/);
});

const kernel = debianKernel();
const withKernel = { skip: kernel === undefined ? "Debian's kernel is not in the cache" : false };

test("Debian's kernel loads, and cut short at any length it is refused", withKernel, () => {
  assert.ok(kernel);
  const config = bootConfig({ commandLine: "console=ttyS0" }, 512 * 1024 * 1024);
  const image = loadKernel(kernel, config);
  assert.equal(image.protocol, "linux64");
  assert.equal(image.cpu.rip, 0x1000200n);
  const syssizeEnd = (kernel[0x1f1] + 1) * 512 + Buffer.from(kernel).readUInt32LE(0x1f4) * 16;
  fc.assert(
    fc.property(fc.oneof(fc.nat(0x400), fc.nat(syssizeEnd - 1)), (length) => {
      assert.throws(() => loadKernel(kernel.subarray(0, length), config), BootError);
    }),
    { numRuns: 300 },
  );
});
