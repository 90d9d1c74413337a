// Puts the userspace suite together for a host: the initramfs with suite.sh and what it compares with, the disk it works on, and the check
// of what it left there. Used by the system tests, under skep and under QEMU.

import { spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, open, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { DebianGuest } from "../../src/host/node/debian-guest.ts";
import { buildInitramfs, VIRTIO_MODULES } from "../../src/host/node/initramfs.ts";

const MIB = 1 << 20;
const PATTERN_BYTES = 1 * MIB;
const DISK_BYTES = 64 * MIB;
/** Where the host puts the pattern for the guest to read, and where the guest puts it, turned round, for the host. */
const HOST_WROTE_AT = 56 * MIB;
const GUEST_WROTE_AT = 48 * MIB;

const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

/** Compiles one C file to a static program and hands back its bytes. */
export async function compileStatic(
  source: string,
  flags: readonly string[] = [],
): Promise<{ program: Buffer; output: string }> {
  const folder = await mkdtemp(join(tmpdir(), "skep-cc-"));
  try {
    const out = join(folder, "program");
    const gcc = spawnSync("gcc", ["-O2", "-static", ...flags, "-o", out, source, "-lm"], { encoding: "utf8" });
    if (gcc.status !== 0) throw new Error(`gcc failed on ${source}: ${gcc.error?.message ?? gcc.stderr}`);
    const run = spawnSync(out, ["--help"], { encoding: "utf8", timeout: 60_000 });
    return { program: await readFile(out), output: run.stdout };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

export interface LinuxSuite {
  readonly initrd: Uint8Array;
  /** Writes a new image for /dev/vda. */
  makeDisk(file: string): Promise<void>;
  /** What is wrong with the image after the suite ran, or undefined. */
  checkDisk(file: string): Promise<string | undefined>;
}

/** A suite with random data of its own. Needs gcc, and a host that runs x86-64 programs for the comparison of floating point. */
export async function linuxSuite(guest: DebianGuest): Promise<LinuxSuite> {
  const pattern = randomBytes(PATTERN_BYTES);
  const reversed = Buffer.from(pattern).reverse();
  const fpcheck = await compileStatic(path("fpcheck.c"), ["-ffp-contract=off", "-frounding-math"]);
  const initrd = await buildInitramfs({
    busybox: guest.busybox,
    modulesDir: guest.modulesDir,
    modules: VIRTIO_MODULES,
    banner: "skep: userspace",
    script: await readFile(path("suite.sh"), "utf8"),
    files: {
      "suite/pattern": { data: pattern },
      "suite/pattern.reversed": { data: reversed },
      "suite/pattern.sha256": { data: `${createHash("sha256").update(pattern).digest("hex")}\n` },
      "suite/fpcheck": { data: fpcheck.program, mode: 0o755 },
      "suite/fpcheck.expected": { data: fpcheck.output },
    },
  });
  return {
    initrd,
    async makeDisk(file) {
      await using disk = await open(file, "w");
      await disk.truncate(DISK_BYTES);
      await disk.write(pattern, 0, PATTERN_BYTES, HOST_WROTE_AT);
    },
    async checkDisk(file) {
      const image = await readFile(file);
      if (image.length !== DISK_BYTES) return `the image has ${image.length} bytes instead of ${DISK_BYTES}`;
      if (!image.subarray(HOST_WROTE_AT, HOST_WROTE_AT + PATTERN_BYTES).equals(pattern))
        return "the host's pattern was overwritten";
      if (!image.subarray(GUEST_WROTE_AT, GUEST_WROTE_AT + PATTERN_BYTES).equals(reversed))
        return "the guest's pattern is not there";
      // ext2's magic number: superblock at 1024, s_magic at 56 (Linux, Documentation/filesystems/ext4/super.rst).
      if (image.readUInt16LE(1024 + 56) !== 0xef53) return "there is no ext2 file system";
      return undefined;
    },
  };
}

export interface SuiteResult {
  readonly passed: readonly string[];
  readonly failed: readonly string[];
  readonly done: boolean;
}

/** Reads what the guest printed on its console. */
export function readSuiteOutput(console: string): SuiteResult {
  const lines = console.split(/\r?\n/);
  return {
    passed: lines.filter((line) => line.startsWith("ok ")).map((line) => line.slice(3)),
    failed: lines.filter((line) => line.startsWith("FAIL ")).map((line) => line.slice(5)),
    done: lines.includes("SUITE DONE"),
  };
}
