"""Judging forecasts.

Of one model (`forecasts`), of two on common ground (`comparison`), number by number (`differences`). Whether a version
may become the champion is decided in `gate`.
"""
