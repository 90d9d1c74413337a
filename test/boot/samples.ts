// Small kernels made by hand from the specifications, and a machine to load them into.

import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import type { BootConfig, BootImage } from "../../src/boot/image.ts";
import { buildE820 } from "../../src/firmware/e820.ts";
import { RecordWriter } from "../../src/firmware/record.ts";

const MIB = 1024 * 1024;

export function bootConfig(changes: Partial<BootConfig> = {}, memoryBytes = 64 * MIB): BootConfig {
  return {
    e820: buildE820({ memoryBytes, acpiBytes: 0x4000, nvsBytes: 0x1000 }),
    rsdp: 0xe0000,
    commandLine: "a=b",
    ...changes,
  };
}

/** Guest memory after a loader: reads what was written, wherever it lies. */
export class LoadedMemory {
  private readonly image: BootImage;

  constructor(image: BootImage) {
    this.image = image;
  }

  bytes(gpa: number, length: number): Uint8Array {
    const write = this.image.writes.find((w) => w.gpa <= gpa && gpa + length <= w.gpa + w.bytes.length);
    if (write === undefined) throw new Error(`nothing was written at 0x${gpa.toString(16)}`);
    return write.bytes.subarray(gpa - write.gpa, gpa - write.gpa + length);
  }

  u32(gpa: number): number {
    return Buffer.from(this.bytes(gpa, 4)).readUInt32LE();
  }

  u64(gpa: number): number {
    return Number(Buffer.from(this.bytes(gpa, 8)).readBigUInt64LE());
  }

  text(gpa: number): string {
    let end = gpa;
    while (this.bytes(end, 1)[0] !== 0) end++;
    return Buffer.from(this.bytes(gpa, end - gpa)).toString("utf8");
  }
}

export interface BzImageOptions {
  version?: number;
  xloadflags?: number;
  loadflags?: number;
  prefAddress?: number;
  initSize?: number;
  alignment?: number;
  relocatable?: number;
  cmdlineSize?: number;
  initrdAddrMax?: number;
  codeBytes?: number;
}

export function bzImage(options: BzImageOptions = {}): Uint8Array {
  const codeBytes = options.codeBytes ?? 0x1000;
  const setup = new Uint8Array(2 * 512);
  const view = new DataView(setup.buffer);
  view.setUint8(0x1f1, 1);
  view.setUint32(0x1f4, codeBytes / 16, true);
  view.setUint16(0x1fe, 0xaa55, true);
  setup.set([0xeb, 0x6a], 0x200);
  view.setUint32(0x202, 0x53726448, true);
  view.setUint16(0x206, options.version ?? 0x20f, true);
  view.setUint8(0x211, options.loadflags ?? 1);
  view.setUint32(0x22c, options.initrdAddrMax ?? 0x7fffffff, true);
  view.setUint32(0x230, options.alignment ?? 0x200000, true);
  view.setUint8(0x234, options.relocatable ?? 1);
  view.setUint16(0x236, options.xloadflags ?? 1, true);
  view.setUint32(0x238, options.cmdlineSize ?? 2047, true);
  view.setBigUint64(0x258, BigInt(options.prefAddress ?? 0x1000000), true);
  view.setUint32(0x260, options.initSize ?? 0x200000, true);
  return new RecordWriter().bytes(setup).bytes(new Uint8Array(codeBytes).fill(0x90)).finish();
}

export interface ElfOptions {
  bits?: 32 | 64;
  vaddr?: bigint;
  paddr?: number;
  entry?: bigint;
  memsz?: number;
  machine?: number;
  body: Uint8Array;
  /** Contents of a PT_NOTE segment. */
  notes?: Uint8Array;
}

export function elf(options: ElfOptions): Uint8Array {
  const wide = (options.bits ?? 64) === 64;
  const headerSize = wide ? 64 : 52;
  const phSize = wide ? 56 : 32;
  const notes = options.notes ?? new Uint8Array(0);
  const count = notes.length > 0 ? 2 : 1;
  const bodyAt = headerSize + count * phSize;
  const paddr = options.paddr ?? 0x100000;
  const vaddr = options.vaddr ?? BigInt(paddr);
  const out = new RecordWriter()
    .u32(0x464c457f)
    .u8(wide ? 2 : 1, 1, 1)
    .zeros(9);
  out.u16(2, options.machine ?? (wide ? 62 : 3)).u32(1);
  const word = (...values: (number | bigint)[]) => (wide ? out.u64(...values) : out.u32(...values.map(Number)));
  word(options.entry ?? vaddr, headerSize, 0)
    .u32(0)
    .u16(headerSize, phSize, count, 0, 0, 0);
  const segment = (type: number, offset: number, v: bigint, p: number, filesz: number, memsz: number) => {
    out.u32(type);
    if (wide) out.u32(7).u64(offset, v, p, filesz, memsz, 4);
    else out.u32(offset, Number(v), p, filesz, memsz, 7, 4);
  };
  const { body } = options;
  segment(1, bodyAt, vaddr, paddr, body.length, options.memsz ?? body.length);
  if (count === 2) segment(4, bodyAt + body.length, 0n, 0, notes.length, notes.length);
  return out.bytes(body).bytes(notes).finish();
}

export function pvhNote(entry: number, wide = true): Uint8Array {
  const note = new RecordWriter().u32(4, wide ? 8 : 4, 18).text("Xen", 4, 0);
  return (wide ? note.u64(entry) : note.u32(entry)).finish();
}

export function multibootHeader(flags: number, ...addresses: number[]): Uint8Array {
  const checksum = (2 * 0x100000000 - 0x1badb002 - flags) % 0x100000000;
  return new RecordWriter().u32(0x1badb002, flags, checksum, ...addresses).finish();
}

const cache = process.env.SKEP_CACHE ?? join(homedir(), ".cache", "skep");

/** Every file below a directory, a few levels deep. */
function filesBelow(directory: string, depth: number): string[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) return depth > 0 ? filesBelow(path, depth - 1) : [];
    return entry.isFile() ? [path] : [];
  });
}

/** Debian's kernel from the cache: unpacked, or out of its package; undefined where neither is there. */
export function debianKernel(): Uint8Array | undefined {
  const files = filesBelow(cache, 4);
  const kernel =
    files.find((path) => /\/vmlinuz-[^/]*cloud-amd64$/.test(path)) ??
    files.find((path) => /\/vmlinuz-[^/]*$/.test(path));
  if (kernel !== undefined && statSync(kernel).size > 0) return readFileSync(kernel);
  const deb = files.find((path) => /\/linux-image-[^/]*cloud-amd64_[^/]*\.deb$/.test(path));
  if (deb === undefined) return undefined;
  const tar = spawnSync("dpkg-deb", ["--fsys-tarfile", deb], { maxBuffer: 1 << 30 });
  const out = spawnSync("tar", ["-xO", "--wildcards", "./boot/vmlinuz-*"], { input: tar.stdout, maxBuffer: 1 << 28 });
  return out.status === 0 && out.stdout.length > 0 ? out.stdout : undefined;
}
