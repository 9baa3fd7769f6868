// What the configuration says of TLS, and whether host.serveNbd can do it.

/** Paths of PEM files. */
export interface TlsConfig {
  /** The authorities whose certificates are trusted. */
  ca: string;
  /** The server's own certificate, and those between it and its authority. */
  cert: string;
  /** The server's private key. */
  key: string;
  /** Whether a client must show a certificate that an authority of `ca` has signed. */
  verifyPeer?: boolean | undefined;
}

/** The one place to change once host.serveNbd takes `tls`: it is passed on as it is. */
export const TLS_KNOWN: boolean = false;
