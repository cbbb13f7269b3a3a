"""cliplens"""
