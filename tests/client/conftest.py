import json
from http import HTTPStatus

import pytest
from requests import Response
from requests.adapters import BaseAdapter


class Replies(BaseAdapter):
    """Answers a session's requests by a function: of a request, its status and body, JSON or bytes."""

    def __init__(self, serve):
        super().__init__()
        self.serve = serve

    def send(self, request, **arguments):
        response = Response()
        response.status_code, body = self.serve(request)
        response.reason = HTTPStatus(response.status_code).phrase
        response._content = body if isinstance(body, bytes) else json.dumps(body).encode()
        response.request, response.url, response.connection = request, request.url, self
        return response

    def close(self):
        pass


@pytest.fixture
def replies():
    return Replies
