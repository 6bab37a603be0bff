"""A web server of pictures for runs over real URLs: what it serves can be changed, and it counts who asked for what."""

import io
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image


def jpeg(number: int, side: int = 48) -> bytes:
    """A small picture, different for every number."""
    noise = np.random.Generator(np.random.Philox(key=number)).integers(0, 256, (6, 6, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
    return file.getvalue()


class LittleWeb(ThreadingHTTPServer):
    """Serves ``/<number>.jpg``.

    Attributes:
        broken: number -> status to answer with instead.
        extra: number -> more headers.
        asked: requests per path.
        closed: paths that nobody should ask for any more; who does is noted in `asked_again`.
        delay: seconds before every answer.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.broken: dict[int, int] = {}
        self.extra: dict[int, dict[str, str]] = {}
        self.asked: Counter[str] = Counter()
        self.closed: set[str] = set()
        self.asked_again: set[str] = set()
        self.delay = 0.0
        self._lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def url(self, number: int) -> str:
        return f"http://127.0.0.1:{self.server_port}/{number}.jpg"

    def note(self, path: str) -> None:
        with self._lock:
            self.asked[path] += 1
            if path in self.closed:
                self.asked_again.add(path)

    def handle_error(self, *_: object) -> None:
        """Nothing to say about clients that were killed."""

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LittleWeb

    def do_GET(self) -> None:
        self.server.note(self.path)
        number = int(self.path.strip("/").removesuffix(".jpg"))
        if self.server.delay:
            time.sleep(self.server.delay)
        status = self.server.broken.get(number, 200)
        body = jpeg(number) if status == 200 else b""
        try:
            self.send_response(status)
            for name, value in self.server.extra.get(number, {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            pass  # the client was killed

    def log_message(self, *_: object) -> None:
        pass
