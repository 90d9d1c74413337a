// Where files that can be fetched again are kept: outside the repository, as the XDG Base Directory Specification (0.8) says.

import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";

/** $SKEP_CACHE, else $XDG_CACHE_HOME/skep, else ~/.cache/skep. The directory need not exist yet. */
export function cacheDirectory(env: NodeJS.ProcessEnv = process.env): string {
  if (env.SKEP_CACHE) return resolve(env.SKEP_CACHE);
  // The specification has relative values ignored.
  const xdg = env.XDG_CACHE_HOME;
  return join(xdg && isAbsolute(xdg) ? xdg : join(homedir(), ".cache"), "skep");
}
