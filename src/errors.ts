// The error that users of skep see: one line that says what is wrong and, where that is known, what to do about it.

/**
 * Where the cause lies: in the options (`config`), in a file that is to be booted (`boot`), in a disk image (`disk`), in a file that cannot
 * be read or written (`file`), in what the host can give (`host`), in the use of the API (`state`), or in skep itself (`internal`).
 */
export type SkepErrorCode = "config" | "boot" | "disk" | "file" | "host" | "state" | "internal";

export class SkepError extends Error {
  override readonly name = "SkepError";
  readonly code: SkepErrorCode;

  constructor(code: SkepErrorCode, message: string, options?: ErrorOptions) {
    super(message.replaceAll(/\s*[\r\n]+\s*/g, " "), options);
    this.code = code;
  }
}
