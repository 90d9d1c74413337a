// Block storage in a file, byte for byte (a raw disk image), through node:fs.

import { closeSync, constants, fdatasyncSync, fstatSync, openSync, readSync, writeSync } from "node:fs";
import type { BlockStorage } from "../block.ts";

const DISCARD_CHUNK = 1 << 16;
const SECTOR = 512;

const REASONS: { readonly [code: string]: string } = {
  ENOENT: "there is no such file",
  ENOTDIR: "a part of the path is no directory",
  EACCES: "permission denied",
  EPERM: "permission denied",
  EROFS: "the file system is read-only",
  EISDIR: "it is a directory",
  EMFILE: "too many files are open",
  ENFILE: "too many files are open",
  ETXTBSY: "it is being executed",
};

/** A disk image that can't be used; the message is one line for the user. */
export class DiskImageError extends Error {}

export class FileBlockStorage implements BlockStorage {
  readonly size: number;
  readonly readOnly: boolean;
  readonly path: string;
  private fd: number;
  private scratch: Uint8Array | undefined;

  /** Opens an image that exists; throws a DiskImageError. Nothing about the file is changed before the first write. */
  constructor(path: string, options: { readonly readOnly?: boolean } = {}) {
    this.path = path;
    this.readOnly = options.readOnly ?? false;
    try {
      // Non-blocking, so that a named pipe can be refused instead of waited for.
      this.fd = openSync(path, (this.readOnly ? constants.O_RDONLY : constants.O_RDWR) | (constants.O_NONBLOCK ?? 0));
    } catch (error) {
      throw new DiskImageError(
        `cannot open disk image ${path}${this.readOnly ? "" : " for writing"}: ${reason(error)}`,
      );
    }
    const stat = fstatSync(this.fd);
    this.size = stat.size;
    let problem: string | undefined;
    if (stat.isDirectory()) problem = "it is a directory";
    else if (!stat.isFile()) problem = "it is no regular file";
    else if (stat.size === 0) problem = "it is empty";
    else if (stat.size % SECTOR !== 0) problem = `its size, ${stat.size} bytes, is no multiple of ${SECTOR}`;
    if (problem === undefined) return;
    closeSync(this.fd);
    throw new DiskImageError(`cannot use disk image ${path}: ${problem}`);
  }

  read(offset: number, into: Uint8Array): void {
    let done = 0;
    while (done < into.length) {
      const count = readSync(this.fd, into, done, into.length - done, offset + done);
      if (count === 0) throw new Error(`${this.path} has become shorter`);
      done += count;
    }
  }

  write(offset: number, data: Uint8Array): void {
    if (this.readOnly) throw new Error(`${this.path} is open for reading only`);
    let done = 0;
    while (done < data.length) done += writeSync(this.fd, data, done, data.length - done, offset + done);
  }

  flush(): void {
    if (!this.readOnly) fdatasyncSync(this.fd);
  }

  /** node:fs can't punch holes. Zeroes are written only over what is not zero, so that a sparse image stays sparse. */
  discard(offset: number, length: number): void {
    if (this.readOnly) throw new Error(`${this.path} is open for reading only`);
    this.scratch ??= new Uint8Array(DISCARD_CHUNK);
    for (let done = 0; done < length; done += DISCARD_CHUNK) {
      const chunk = this.scratch.subarray(0, Math.min(DISCARD_CHUNK, length - done));
      this.read(offset + done, chunk);
      if (isZero(chunk)) continue;
      chunk.fill(0);
      this.write(offset + done, chunk);
    }
  }

  close(): void {
    if (this.fd < 0) return;
    closeSync(this.fd);
    this.fd = -1;
  }
}

/** Lengths here are multiples of 512, so whole words can be compared. */
function isZero(bytes: Uint8Array): boolean {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
  for (const word of words) if (word !== 0) return false;
  return bytes.subarray(words.length * 4).every((byte) => byte === 0);
}

/** Why a file operation failed, as messages give it. */
export function reason(error: unknown): string {
  const code = error instanceof Error && "code" in error ? String(error.code) : "unknown error";
  return REASONS[code] ?? code;
}
