// Runs the command as a user does.

import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

const skep = fileURLToPath(new URL("../../bin/skep", import.meta.url));

export interface Run {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export function runSkep(
  args: readonly string[],
  options: {
    readonly input?: string;
    readonly keepInputOpen?: boolean;
    readonly cwd?: string;
    readonly timeoutMs?: number;
  } = {},
): Promise<Run> {
  return new Promise((resolve, reject) => {
    const child = spawn(skep, args, { stdio: ["pipe", "pipe", "pipe"], cwd: options.cwd });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("latin1").on("data", (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    child.stdin.on("error", () => undefined);
    child.stdin.write(options.input ?? "");
    if (!options.keepInputOpen) child.stdin.end();
    const deadline = setTimeout(() => child.kill("SIGKILL"), options.timeoutMs ?? 60_000);
    child.on("error", reject);
    child.on("close", (status) => {
      clearTimeout(deadline);
      resolve({ status, stdout, stderr });
    });
  });
}
