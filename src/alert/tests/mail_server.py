"""Real SMTP servers for the tests of mail: one with STARTTLS and one with TLS from the first byte, both with logins.

    mail_server.py CERTIFICATE KEY

Prints the two ports, then each mail that was taken, a line of JSON each. What happens to a mail depends on its recipient.
"""

import json
import logging
import ssl
import sys
import warnings

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult


# It warns of what the tests are about.
warnings.simplefilter("ignore")
logging.getLogger("mail.log").setLevel(logging.CRITICAL)


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"):
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = {"from": envelope.mail_from, "to": envelope.rcpt_tos, "text": envelope.content.decode()}
        print(json.dumps(mail), flush=True)
        first = envelope.rcpt_tos[0]
        if first.startswith("later@"):
            return "451 4.3.0 try again later"
        if first.startswith("never@"):
            return "554 5.6.0 not this"
        if first.startswith("lost@"):
            server.transport.abort()
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    good = (data.login, data.password) == (b"hebb", b"s3cret-passw0rd")
    return AuthResult(success=good, handled=good)


def context():
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(sys.argv[1], sys.argv[2])
    return tls


class FreePort(Controller):
    """A port that the system chooses, which the controller's own check doesn't expect."""

    def _trigger_server(self):
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


class StartTls(FreePort):
    def factory(self):
        return SMTP(self.handler, tls_context=context(), require_starttls=True, auth_required=True, authenticator=authenticate)


class Tls(FreePort):
    def factory(self):
        return SMTP(self.handler, auth_required=True, auth_require_tls=False, authenticator=authenticate)


servers = [
    StartTls(Handler(), hostname="127.0.0.1", port=0),
    Tls(Handler(), hostname="127.0.0.1", port=0, ssl_context=context()),
]
for server in servers:
    server.start()
    print(server.port, flush=True)
# The end of the one who began it is the end of it.
sys.stdin.read()
